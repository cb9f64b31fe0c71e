#![allow(clippy::unwrap_used)]

use data::dataset::Catalogue;
use data::job::{self, Job};
use data::tables::ItemRow;
use kernels::collective::{Collective, local};

use super::*;
use crate::gang::{Word, decode, encode};
use crate::population::User;
use crate::training::{Sliced, Trainee};

const STEPS: u64 = 12;

/// A shop in which histories are of many lengths.
struct Shop {
    catalogue: Catalogue,
    known: KnownItems,
    users: Vec<User>,
    settings: job::Retriever,
}

impl Shop {
    fn open(slices: usize) -> Self {
        let item = |n: u32| {
            let (item_id, title, attributes) = (format!("{n:03}"), String::new(), "{}".to_owned());
            ItemRow { item_id, title, image: None, attributes }
        };
        let catalogue = Catalogue::new((1..=40).map(item).collect()).unwrap();
        let known = KnownItems::all(&catalogue);
        let item = |user: u32, n: u32| (user * 7 + n * n * 3 + n) % 40 + 1;
        let items = |user: u32| (0..4 + user * user % 23).map(|n| item(user, n)).collect();
        let users = (0..30).map(|user| User { id: format!("{user:02}"), items: items(user) }).collect();
        let text = format!(
            "schema_version = 1\nname = \"shop\"\n[dataset]\npath = \"log\"\n[ranker]\nbase = \"base\"\n\
             [retriever]\nhidden = 8\nlayers = 1\nbatch_size = 12\nmax_length = 16\nslices = {slices}\n"
        );
        Self { catalogue, known, users, settings: Job::parse("job.toml", &text, &[]).unwrap().retriever }
    }

    fn lessons(&self) -> Lessons<'_> {
        Lessons::new(7, &self.settings, &self.catalogue, &self.known, &self.users).unwrap()
    }

    fn trainee<'a>(&'a self, device: &'a Device) -> Whole<'a> {
        Whole::new(self.lessons(), device).unwrap()
    }
}

/// A step of a member of a gang. Returns the loss.
fn step(gang: &mut dyn Collective, trainee: &mut dyn Trainee, step: u64) -> f64 {
    let (tree, word) = trainee.learn(gang, step, &|| ()).unwrap();
    let words: Vec<Word> = decode(&gang.all_gather(encode(&word)).unwrap()).unwrap();
    let total = gang.all_reduce(tree, &trainee.parameters()).unwrap();
    trainee.apply(gang, total).unwrap();
    Word::verdict(&words).unwrap().figures.iter().sum()
}

/// What is learnt, to the bit, and the losses on the way.
type Learnt = (Vec<u32>, Vec<u64>);

/// Trains with so many members from each step on; who is new takes over the state of the first member.
fn train(shop: &Shop, worlds: &[(u64, usize)]) -> Learnt {
    let device = Device::cpu(1).unwrap();
    let (mut members, mut losses) = (vec![shop.trainee(&device)], Vec::new());
    for (place, (first, world)) in worlds.iter().enumerate() {
        let last = worlds.get(place + 1).map_or(STEPS, |(next, _)| *next);
        let (model, optimizer) = (members[0].model.clone(), members[0].optimizer.clone());
        members.truncate(*world);
        while members.len() < *world {
            let mut member = shop.trainee(&device);
            (member.model, member.optimizer) = (model.clone(), optimizer.clone());
            members.push(member);
        }
        let all = std::thread::scope(|scope| {
            let gang = members.iter_mut().zip(local::group(*world));
            let work = gang.map(|(trainee, mut end)| {
                scope.spawn(move || (*first..last).map(|n| step(&mut end, trainee, n).to_bits()).collect())
            });
            let work: Vec<_> = work.collect();
            work.into_iter().map(|member| member.join().unwrap()).collect::<Vec<Vec<u64>>>()
        });
        assert!(all.iter().all(|other| *other == all[0]), "members heard of different losses");
        losses.extend(&all[0]);
    }
    let bits = |member: &Whole<'_>| -> Vec<u32> {
        member.model.params().to_flat().unwrap().iter().map(|x| x.to_bits()).collect()
    };
    let learnt = bits(&members[0]);
    assert!(members.iter().all(|member| bits(member) == learnt), "members have learnt different things");
    (learnt, losses)
}

#[test]
fn any_number_of_workers_learns_the_same_to_the_bit() {
    let shop = Shop::open(5);
    let alone = train(&shop, &[(0, 1)]);
    assert!(f64::from_bits(alone.1[11]) < f64::from_bits(alone.1[0]), "it learns nothing");
    for world in [2, 3, 5, 8] {
        assert!(train(&shop, &[(0, world)]) == alone, "{world} workers");
    }
    for (n, schedule) in [vec![(0, 3), (4, 2), (9, 8)], vec![(0, 1), (1, 8), (2, 1), (7, 4)]].iter().enumerate() {
        assert!(train(&shop, schedule) == alone, "schedule {n}");
    }
}

#[test]
fn slices_add_up_to_the_step() {
    let device = Device::cpu(1).unwrap();
    let gradients = |slices: usize| {
        let shop = Shop::open(slices);
        let mut trainee = shop.trainee(&device);
        let mut tree = kernels::collective::Tree::new(trainee.begin(3).unwrap());
        for slice in 0..tree.slices() {
            tree.push(slice, trainee.slice(slice).unwrap().0).unwrap();
        }
        trainee.model.params().named(tree.total().unwrap()).unwrap().to_flat().unwrap()
    };
    let (whole, cut) = (gradients(1), gradients(5));
    let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let apart: Vec<f32> = whole.iter().zip(&cut).map(|(a, b)| a - b).collect();
    assert!(norm(&apart) <= 1e-5 * norm(&whole), "{} of {}", norm(&apart), norm(&whole));
}

#[test]
fn items_are_shared_out_where_they_are_many_and_can_be() {
    let shared = |slices: u32, from: u32| {
        let mut shop = Shop::open(slices as usize);
        shop.settings.share_items_from = from;
        shop.lessons().are_shared()
    };
    assert!(shared(5, 40) && shared(2, 1));
    assert!(!shared(5, 41) && !shared(1, 1));
}

#[test]
fn shared_items_come_back_from_files_with_what_was_kept() {
    let (shop, device) = (Shop::open(5), Device::cpu(1).unwrap());
    let trainee = || Shared::new(shop.lessons(), &device).unwrap();
    let (mut first, mut end) = (trainee(), local::alone());
    let losses: Vec<f64> = (0..STEPS).map(|n| step(&mut end, &mut first, n)).collect();
    assert!(losses[11] < losses[0], "it learns nothing: {losses:?}");
    first.keep().unwrap();
    step(&mut end, &mut first, STEPS);
    let files = |trainee: &Shared<'_>| trainee.files().unwrap();
    let snapshot = |trainee: &Shared<'_>| {
        let files = files(trainee).into_iter().map(|(name, bytes)| (name, bytes.into()));
        crate::snapshot::Snapshot { course: crate::early_stopping::Course::default(), files: files.collect() }
    };
    let mut second = trainee();
    second.restore(&snapshot(&first)).unwrap();
    assert!(files(&second) == files(&first));
    step(&mut end, &mut first, STEPS + 1);
    step(&mut end, &mut second, STEPS + 1);
    assert!(files(&second) == files(&first));
}
