//! What goes wrong, and who wants something meanwhile.

use std::time::Duration;

use proto::JobState;
use tokio::sync::oneshot;

use crate::coordinator_process::Input;
use crate::world::World;

/// Places of workers.
const PLACES: u64 = 4;

/// Lets things go wrong for a while, then heals everything, and waits until every job has succeeded.
pub(crate) async fn live(world: World) {
    let sim = world.sim.clone();
    let places = 1 + sim.draw(PLACES);
    world.start_coordinator();
    for place in 0..places {
        world.start_worker(place);
    }
    for (job, _) in &world.catalogue.jobs {
        sim.sleep(sim.between(0, 2000)).await;
        submit(&world, job.clone()).await;
    }
    let until = sim.now() + sim.between(3000, 45_000);
    let restless = sim.between(200, 6000).as_millis() as u64;
    let mut next = sim.sleep(Duration::ZERO);
    while sim.now() < until {
        next.await;
        next = sim.sleep(sim.between(1, restless));
        something(&world, places).await;
        revive(&world, places);
    }
    heal(&world).await;
    succeed(&world, places).await;
}

async fn something(world: &World, places: u64) {
    let sim = &world.sim;
    let workers = world.workers();
    let worker = (!workers.is_empty()).then(|| workers[sim.draw(workers.len() as u64) as usize].clone());
    let coordinators = world.coordinators();
    let leader = coordinators.last().map(|(process, _)| *process);
    match sim.draw(15) {
        0 | 1 => {
            if let Some((_, process, _)) = worker {
                world.kill(process);
            }
        }
        2 => {
            if let Some((_, process, _)) = worker {
                let time = sim.between(500, 15_000);
                sim.log(|| format!("worker {process} sleeps for {time:?}"));
                sim.freeze(process, time);
            }
        }
        3 => {
            if let Some((_, _, stop)) = worker {
                sim.log(|| "a worker is told to leave".to_owned());
                stop.cancel();
            }
        }
        4 => {
            if let Some(process) = leader {
                world.kill(process);
            }
        }
        5 => {
            if let Some(process) = leader {
                let time = sim.between(500, 20_000);
                sim.log(|| format!("coordinator {process} sleeps for {time:?}"));
                sim.freeze(process, time);
                world.start_coordinator();
            }
        }
        6 => world.start_coordinator(),
        7 | 8 => world.cut(),
        9 => {
            let time = sim.between(100, 8000);
            sim.log(|| format!("the store is away for {time:?}"));
            world.bad.goes_away(time);
        }
        10 if sim.chance(300) => {
            let job = any_job(world);
            sim.log(|| format!("{job} is cancelled"));
            tell(world, Input::Cancel(job));
        }
        11 => submit(world, any_job(world)).await,
        12 => {
            let (one, other) = (sim.draw(places), sim.draw(places));
            sim.log(|| format!("places {one} and {other} are apart"));
            world.rings.part((one != other).then_some((one, other)));
        }
        _ => world.start_worker(sim.draw(places)),
    }
}

fn any_job(world: &World) -> String {
    world.catalogue.jobs[world.sim.draw(world.catalogue.jobs.len() as u64) as usize].0.clone()
}

/// Where somebody died, somebody else comes sooner or later.
fn revive(world: &World, places: u64) {
    let sim = &world.sim;
    let there: Vec<u64> = world.workers().iter().map(|(place, ..)| *place).collect();
    for place in (0..places).filter(|place| !there.contains(place)) {
        if sim.chance(400) {
            world.start_worker(place);
        }
    }
    if world.coordinators().is_empty() && sim.chance(400) {
        world.start_coordinator();
    }
}

async fn heal(world: &World) {
    world.sim.log(|| "nothing goes wrong from now on".to_owned());
    world.heal();
    for process in 1..=world.sim.process() {
        world.sim.thaw(process);
    }
    // Whoever leads now, a coordinator whose claim to lead is old has noticed by then.
    world.sim.sleep(Duration::from_secs(15)).await;
}

/// Asks for every job until it has succeeded.
async fn succeed(world: &World, places: u64) {
    loop {
        for place in 0..places.max(2) {
            if !world.workers().iter().any(|(there, ..)| *there == place) {
                world.start_worker(place);
            }
        }
        if world.coordinators().is_empty() {
            world.start_coordinator();
            world.sim.sleep(Duration::from_secs(3)).await;
        }
        let mut succeeded = true;
        for (job, _) in &world.catalogue.jobs {
            match state(world, job).await {
                Some(JobState::Succeeded) => {}
                Some(JobState::Running) => succeeded = false,
                _ => {
                    succeeded = false;
                    submit(world, job.clone()).await;
                }
            }
        }
        if succeeded {
            return;
        }
        world.sim.sleep(Duration::from_secs(1)).await;
    }
}

/// Says something to the coordinator that a client finds, which need not be the one that leads.
fn tell(world: &World, input: Input) {
    let mut found = world.coordinators();
    if !found.is_empty() {
        let (_, inbox) = found.swap_remove(world.sim.draw(found.len() as u64) as usize);
        world.sim.call(world.sim.between(1, 100), move || drop(inbox.send(input)));
    }
}

async fn submit(world: &World, job: String) {
    world.sim.log(|| format!("{job} is submitted"));
    let (reply, answer) = oneshot::channel();
    tell(world, Input::Submit(job, reply));
    answered(world, answer).await;
}

async fn state(world: &World, job: &str) -> Option<JobState> {
    let (reply, answer) = oneshot::channel();
    tell(world, Input::State(job.to_owned(), reply));
    answered(world, answer).await.flatten()
}

async fn answered<T>(world: &World, answer: oneshot::Receiver<T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => answer.ok(),
        () = world.sim.sleep(Duration::from_secs(5)) => None,
    }
}
