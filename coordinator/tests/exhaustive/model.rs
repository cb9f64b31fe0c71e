//! The states of the model, and what can follow each.

const SHARDS: usize = 2;
const ALL: u8 = (1 << SHARDS) - 1;

/// How often what could go on for ever may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Terms that are taken.
    pub(crate) terms: u8,
    /// Leases that are granted.
    pub(crate) grants: u8,
    /// Processes that die.
    pub(crate) deaths: u8,
    /// Answers of the store that are lost, wrong or late.
    pub(crate) faults: u8,
}

/// The rules, each of which can be broken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// "It exists" and a lost answer are not believed before the object is read back.
    pub(crate) read_back: bool,
    /// No two coordinators write the same bytes into a term.
    pub(crate) distinct_claims: bool,
    /// `_SUCCESS` is created when every shard is done, not one before.
    pub(crate) success_last: bool,
    /// The part comes before the done record.
    pub(crate) part_first: bool,
}

pub(crate) const RULES: Rules = Rules { read_back: true, distinct_claims: true, success_last: true, part_first: true };

/// Who wrote an object: a worker's attempt, or a coordinator's life.
pub(crate) type Author = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Object {
    Term(u8),
    Part(u8),
    Done(u8),
    Success,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leader {
    Down,
    /// Has listed the terms.
    Listed(u8),
    /// Does not know whether it has taken a term.
    Unsure(u8),
    Leads {
        term: u8,
        /// Shards known to be done; nothing before they were listed.
        known: Option<u8>,
        /// It tries to complete the artifact.
        finished: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Worker {
    Idle,
    Works { term: u8, shard: u8, attempt: Author, step: Step },
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    CreatePart,
    ReadPart,
    CreateDone { part: Author },
    ReadDone { part: Author },
    Say,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Objects in the order of their names, with their authors; a done record also says whose part it describes.
    objects: Vec<(Object, Author, Author)>,
    leaders: [Leader; 2],
    workers: [Worker; 2],
    /// The highest term that a worker has heard of.
    heard: [u8; 2],
    /// Grants under way: term, worker, shard.
    grants: Vec<(u8, u8, u8)>,
    /// Words about commits under way: term, shard.
    words: Vec<(u8, u8)>,
    /// Creates whose senders have given up.
    late: Vec<(Object, Author, Author)>,
    attempts: u8,
    left: Budget,
}

/// What a create comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    New,
    Exists,
    /// Nothing that can be believed.
    None,
}

impl State {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            objects: Vec::new(),
            leaders: [Leader::Down, Leader::Down],
            workers: [Worker::Idle, Worker::Idle],
            heard: [0; 2],
            grants: Vec::new(),
            words: Vec::new(),
            late: Vec::new(),
            attempts: 0,
            left: budget,
        }
    }

    fn find(&self, object: Object) -> Option<(Author, Author)> {
        self.objects.iter().find(|(o, ..)| *o == object).map(|(_, author, part)| (*author, *part))
    }

    fn put(&mut self, object: Object, author: Author, part: Author) -> bool {
        let absent = self.find(object).is_none();
        if absent {
            self.objects.push((object, author, part));
            self.objects.sort_unstable();
        }
        absent
    }

    /// Every way in which a create can end.
    fn create(&self, object: Object, author: Author, part: Author) -> Vec<(Self, Answer)> {
        let mut ways = Vec::new();
        let mut done = self.clone();
        let new = done.put(object, author, part);
        ways.push((done.clone(), if new { Answer::New } else { Answer::Exists }));
        if self.left.faults > 0 {
            done.left.faults -= 1;
            // The answer is lost, or the client's own second try says that it exists.
            ways.push((done.clone(), Answer::None));
            // A conflict that wrote nothing.
            let mut nothing = self.clone();
            nothing.left.faults -= 1;
            ways.push((nothing.clone(), Answer::None));
            nothing.late.push((object, author, part));
            nothing.late.sort_unstable();
            ways.push((nothing, Answer::None));
        }
        ways
    }

    fn highest(&self) -> u8 {
        let term = |o: &(Object, Author, Author)| if let Object::Term(t) = o.0 { t } else { 0 };
        self.objects.iter().map(term).max().unwrap_or(0)
    }

    fn done(&self) -> u8 {
        (0..SHARDS as u8).filter(|s| self.find(Object::Done(*s)).is_some()).map(|s| 1 << s).sum()
    }

    pub(crate) fn next(&self, rules: Rules) -> Vec<Self> {
        let mut next = Vec::new();
        for l in 0..2 {
            self.lead(l, rules, &mut next);
        }
        for w in 0..2 {
            self.work(w, rules, &mut next);
        }
        for at in 0..self.late.len() {
            let mut state = self.clone();
            let (object, author, part) = state.late.remove(at);
            state.put(object, author, part);
            next.push(state);
        }
        next
    }

    fn lead(&self, l: usize, rules: Rules, next: &mut Vec<Self>) {
        let become_ = |state: &Self, leader: Leader| {
            let mut state = state.clone();
            state.leaders[l] = leader;
            state
        };
        let author = if rules.distinct_claims { l as u8 } else { 0 };
        let lives = |term| Leader::Leads { term, known: None, finished: false };
        match self.leaders[l].clone() {
            Leader::Down if self.left.terms > 0 => {
                let mut state = become_(self, Leader::Listed(self.highest()));
                state.left.terms -= 1;
                next.push(state);
            }
            Leader::Down => {}
            Leader::Listed(highest) => {
                let term = highest + 1;
                for (state, answer) in self.create(Object::Term(term), author, 0) {
                    next.push(match answer {
                        Answer::New => become_(&state, lives(term)),
                        Answer::None if !rules.read_back => become_(&state, lives(term)),
                        // Identical bytes look like one's own.
                        Answer::Exists | Answer::None => become_(&state, Leader::Unsure(term)),
                    });
                }
            }
            Leader::Unsure(term) => next.push(match self.find(Object::Term(term)) {
                Some((holder, _)) if holder == author => become_(self, lives(term)),
                Some(_) => become_(self, Leader::Listed(self.highest())),
                None => become_(self, Leader::Listed(term - 1)),
            }),
            Leader::Leads { term, known: None, finished } => {
                next.push(become_(self, Leader::Leads { term, known: Some(self.done()), finished }));
            }
            Leader::Leads { term, known: Some(known), finished } => {
                self.decide(term, known, finished, rules, next, &become_);
            }
        }
        if self.left.deaths > 0 && self.leaders[l] != Leader::Down {
            let mut state = become_(self, Leader::Down);
            state.left.deaths -= 1;
            next.push(state);
        }
    }

    fn decide(
        &self,
        term: u8,
        known: u8,
        finished: bool,
        rules: Rules,
        next: &mut Vec<Self>,
        become_: &dyn Fn(&Self, Leader) -> Self,
    ) {
        if self.highest() > term {
            next.push(become_(self, Leader::Down)); // it may notice now, or go on
        }
        for shard in (0..SHARDS as u8).filter(|s| known & (1 << s) == 0) {
            for worker in (0..2).filter(|_| self.left.grants > 0) {
                let mut state = self.clone();
                state.left.grants -= 1;
                state.grants.push((term, worker, shard));
                state.grants.sort_unstable();
                next.push(state);
            }
        }
        for (at, word) in self.words.iter().enumerate().filter(|(_, word)| word.0 == term) {
            let mut state = become_(self, Leader::Leads { term, known: Some(known | 1 << word.1), finished });
            state.words.remove(at);
            next.push(state);
        }
        if (known == ALL || (!rules.success_last && known != 0)) && !finished {
            for (state, answer) in self.create(Object::Success, 0, 0) {
                let finished = answer != Answer::None || !rules.read_back;
                next.push(become_(&state, Leader::Leads { term, known: Some(known), finished }));
            }
        }
    }

    fn work(&self, w: usize, rules: Rules, next: &mut Vec<Self>) {
        let become_ = |state: &Self, worker: Worker| {
            let mut state = state.clone();
            state.workers[w] = worker;
            state
        };
        let Worker::Works { term, shard, attempt, step } = self.workers[w].clone() else {
            for (at, grant) in self.grants.iter().enumerate().filter(|(_, grant)| usize::from(grant.1) == w) {
                let mut state = self.clone();
                let (term, _, shard) = *grant;
                state.grants.remove(at);
                if term >= state.heard[w] {
                    state.heard[w] = term;
                    state.attempts += 1;
                    let attempt = state.attempts;
                    let step = if rules.part_first { Step::CreatePart } else { Step::CreateDone { part: attempt } };
                    state.workers[w] = Worker::Works { term, shard, attempt, step };
                }
                next.push(state);
            }
            return;
        };
        let at = |step| Worker::Works { term, shard, attempt, step };
        match step {
            Step::CreatePart => {
                for (state, answer) in self.create(Object::Part(shard), attempt, 0) {
                    let believed = answer == Answer::New || !rules.read_back;
                    let step = if believed { Step::CreateDone { part: attempt } } else { Step::ReadPart };
                    next.push(become_(&state, at(step)));
                }
            }
            Step::ReadPart => next.push(match self.find(Object::Part(shard)) {
                Some((part, _)) => become_(self, at(Step::CreateDone { part })),
                None => become_(self, at(Step::CreatePart)),
            }),
            Step::CreateDone { part } => {
                for (state, answer) in self.create(Object::Done(shard), attempt, part) {
                    let believed = answer == Answer::New || !rules.read_back;
                    let step = if believed { Step::Say } else { Step::ReadDone { part } };
                    next.push(become_(&state, at(step)));
                }
            }
            Step::ReadDone { part } => next.push(match self.find(Object::Done(shard)) {
                Some(_) => become_(self, at(Step::Say)),
                None => become_(self, at(Step::CreateDone { part })),
            }),
            Step::Say => {
                let mut state = become_(self, Worker::Idle);
                state.words.push((term, shard));
                state.words.sort_unstable();
                next.push(state);
            }
        }
        if self.left.deaths > 0 {
            let mut state = become_(self, Worker::Idle);
            state.left.deaths -= 1;
            state.heard[w] = 0;
            next.push(state);
        }
    }

    /// What must not be, if it is.
    pub(crate) fn violation(&self) -> Option<String> {
        for shard in 0..SHARDS as u8 {
            if let Some((_, part)) = self.find(Object::Done(shard))
                && self.find(Object::Part(shard)).is_none_or(|(author, _)| author != part)
            {
                return Some(format!("shard {shard} is done without the part that its record describes"));
            }
        }
        if self.find(Object::Success).is_some() && self.done() != ALL {
            return Some("_SUCCESS before every shard is done".to_owned());
        }
        let mut terms = Vec::new();
        for leader in &self.leaders {
            let Leader::Leads { term, known, finished } = leader else { continue };
            if known.is_some_and(|known| known & !self.done() != 0) {
                return Some("a coordinator believes in a commit that is not there".to_owned());
            }
            if *finished && self.find(Object::Success).is_none() {
                return Some("a coordinator believes in a _SUCCESS that is not there".to_owned());
            }
            if terms.contains(term) {
                return Some("two coordinators lead one term".to_owned());
            }
            terms.push(*term);
        }
        None
    }

    /// Whether everything is complete.
    pub(crate) fn complete(&self) -> bool {
        self.find(Object::Success).is_some()
    }
}
