//! Nodes, containers and a store, from the first start to the last command's end.
//!
//! Time goes on from one event to the next: between two of them every rate is constant. Nodes are alike and start alike, so the
//! simulation is of one node and its share of the store.

use super::fit::Demand;
use super::flow::share;
use super::stores::Store;

/// Who starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cluster {
    /// Nodes.
    pub nodes: u32,
    /// Containers of each.
    pub containers: u32,
    /// Cores that the containers of a node share.
    pub cores: f64,
    /// Bytes per second of a node's network.
    pub network: f64,
    /// Seconds between the starts of a node's containers.
    pub stagger: f64,
    /// Whether the containers of a node share what they build.
    pub node_cache: bool,
}

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Seconds from its own start until the last container executes Python.
    pub ready: f64,
    /// Seconds until the first command ends.
    pub first: f64,
    /// Seconds until half of them have ended.
    pub median: f64,
    /// Seconds until all have ended.
    pub last: f64,
    /// Seconds that all executors wait for the end of their first command, together.
    pub waited: f64,
    /// Core seconds of all nodes.
    pub work: f64,
    /// Bytes that the store gives.
    pub fetched: f64,
    /// Bytes that are written on each node.
    pub written: f64,
}

/// One stretch of a container's life.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Not started, or waiting for something that needs no core: seconds left.
    Waiting(f64),
    /// Core seconds left, and the cores that they can have at most.
    Alone(f64, f64),
    /// The extraction with this index.
    Building(usize),
    /// At its end.
    Over,
}

/// One container.
#[derive(Debug, Clone)]
struct Container {
    started: f64,
    stages: std::vec::IntoIter<Stage>,
    stage: Stage,
    ready: f64,
    ended: f64,
}

/// What is fetched and worked on by one container or by several together.
#[derive(Debug, Clone, Copy)]
struct Extraction {
    bytes: f64,
    work: f64,
}

impl Extraction {
    fn is_over(&self) -> bool {
        self.bytes <= DONE && self.work <= DONE
    }
}

/// What is left of something when it counts as done: rounding, in seconds or bytes.
const DONE: f64 = 1e-9;

/// Starts everything and runs it to the end.
pub fn simulate(cluster: &Cluster, store: &Store, demand: &Demand) -> Outcome {
    let mut node = Node::new(cluster, store, demand);
    while node.step() {}
    node.outcome(cluster, demand, store)
}

#[derive(Debug)]
struct Node {
    now: f64,
    cores: f64,
    /// Bytes per second that this node gets.
    network: f64,
    per_container: f64,
    containers: Vec<Container>,
    extractions: Vec<Extraction>,
}

impl Node {
    fn new(cluster: &Cluster, store: &Store, demand: &Demand) -> Self {
        let extraction = Extraction { bytes: demand.packed, work: demand.extraction + demand.packed * store.work };
        let count = if cluster.node_cache { 1 } else { cluster.containers as usize };
        let container = |number: u32| {
            let index = if cluster.node_cache { 0 } else { number as usize };
            let started = f64::from(number) * cluster.stagger;
            let mut stages = vec![
                Stage::Waiting(started + store.latency),
                Stage::Alone(demand.fixed, 1.0),
                Stage::Building(index),
                Stage::Alone(demand.python, demand.threads),
                Stage::Waiting(demand.waiting),
                Stage::Over,
            ]
            .into_iter();
            let stage = stages.next().unwrap_or(Stage::Over);
            Container { started, stages, stage, ready: 0.0, ended: 0.0 }
        };
        let evenly = store.aggregate / f64::from(cluster.nodes.max(1));
        Self {
            now: 0.0,
            cores: cluster.cores,
            network: cluster.network.min(evenly),
            per_container: store.per_container,
            containers: (0..cluster.containers).map(container).collect(),
            extractions: vec![extraction; count],
        }
    }

    /// Goes on to the next event. False: everything is over.
    fn step(&mut self) -> bool {
        self.advance_stages();
        if self.containers.iter().all(|c| c.stage == Stage::Over) {
            return false;
        }
        let builders = self.builders();
        let fetching: Vec<f64> = self.fetching(&builders);
        let (alone, building) = self.computing(&builders);
        let Some(next) = self.next_event(&fetching, &alone, &building) else { return false };
        self.now += next;
        for (extraction, (fetched, worked)) in self.extractions.iter_mut().zip(fetching.iter().zip(&building)) {
            extraction.bytes = less(extraction.bytes, *fetched, next);
            extraction.work = less(extraction.work, *worked, next);
        }
        for (container, rate) in self.containers.iter_mut().zip(&alone) {
            match &mut container.stage {
                Stage::Waiting(left) => *left = less(*left, 1.0, next),
                Stage::Alone(left, _) => *left = less(*left, *rate, next),
                Stage::Building(_) | Stage::Over => {}
            }
        }
        true
    }

    /// Moves every container on whose stage is over.
    fn advance_stages(&mut self) {
        for container in &mut self.containers {
            loop {
                let over = match container.stage {
                    Stage::Waiting(left) | Stage::Alone(left, _) => left <= DONE,
                    Stage::Building(index) => self.extractions.get(index).is_none_or(Extraction::is_over),
                    Stage::Over => break,
                };
                if !over {
                    break;
                }
                if matches!(container.stage, Stage::Building(_)) {
                    container.ready = self.now;
                }
                container.stage = container.stages.next().unwrap_or(Stage::Over);
                if container.stage == Stage::Over {
                    container.ended = self.now;
                }
            }
        }
    }

    /// Containers that take part in each extraction.
    fn builders(&self) -> Vec<usize> {
        let taking = |index: usize| self.containers.iter().filter(|c| c.stage == Stage::Building(index)).count();
        (0..self.extractions.len()).map(taking).collect()
    }

    /// Bytes per second of each extraction.
    fn fetching(&self, builders: &[usize]) -> Vec<f64> {
        let limit = |(extraction, builders): (&Extraction, &usize)| {
            if extraction.bytes <= DONE || *builders == 0 { 0.0 } else { self.per_container * *builders as f64 }
        };
        share(self.network, &self.extractions.iter().zip(builders).map(limit).collect::<Vec<_>>())
    }

    /// Cores of each container that runs alone, and of each extraction.
    fn computing(&self, builders: &[usize]) -> (Vec<f64>, Vec<f64>) {
        let own = |c: &Container| if let Stage::Alone(_, threads) = c.stage { threads } else { 0.0 };
        let all = |(extraction, builders): (&Extraction, &usize)| {
            if extraction.work <= DONE || *builders == 0 { 0.0 } else { self.cores }
        };
        let mut limits: Vec<f64> = self.containers.iter().map(own).collect();
        limits.extend(self.extractions.iter().zip(builders).map(all));
        let mut parts = share(self.cores, &limits);
        let building = parts.split_off(self.containers.len());
        (parts, building)
    }

    /// Seconds until something is over. None: nothing goes on, since there are no cores or no network.
    fn next_event(&self, fetching: &[f64], alone: &[f64], building: &[f64]) -> Option<f64> {
        let until = |left: f64, rate: f64| if left > DONE && rate > 0.0 { left / rate } else { f64::INFINITY };
        let mut next = f64::INFINITY;
        for (extraction, (fetched, worked)) in self.extractions.iter().zip(fetching.iter().zip(building)) {
            next = next.min(until(extraction.bytes, *fetched)).min(until(extraction.work, *worked));
        }
        for (container, rate) in self.containers.iter().zip(alone) {
            next = next.min(match container.stage {
                Stage::Waiting(left) => until(left, 1.0),
                Stage::Alone(left, _) => until(left, *rate),
                Stage::Building(_) | Stage::Over => f64::INFINITY,
            });
        }
        next.is_finite().then_some(next)
    }

    fn outcome(&self, cluster: &Cluster, demand: &Demand, store: &Store) -> Outcome {
        let mut ends: Vec<f64> = self.containers.iter().map(|c| c.ended).collect();
        ends.sort_by(f64::total_cmp);
        let at = |index: usize| ends.get(index).copied().unwrap_or(0.0);
        let copies = if cluster.node_cache { 1.0 } else { f64::from(cluster.containers) };
        let nodes = f64::from(cluster.nodes);
        let each = demand.fixed + demand.python;
        let built = demand.extraction + demand.packed * store.work;
        Outcome {
            ready: self.containers.iter().map(|c| c.ready - c.started).fold(0.0, f64::max),
            first: at(0),
            median: at(ends.len() / 2),
            last: at(ends.len().saturating_sub(1)),
            waited: nodes * self.containers.iter().map(|c| c.ended - c.started).sum::<f64>(),
            work: nodes * (built * copies + each * f64::from(cluster.containers)),
            fetched: nodes * copies * demand.packed,
            written: copies * demand.unpacked,
        }
    }
}

/// What is left after some time at a rate. What takes no time at all is over at once.
fn less(left: f64, rate: f64, time: f64) -> f64 {
    if rate.is_infinite() { 0.0 } else { (left - rate * time).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand { fixed: 1.0, extraction: 8.0, packed: 100.0, unpacked: 300.0, python: 2.0, threads: 1.0, waiting: 0.5 }
    }

    fn store(aggregate: f64) -> Store {
        Store { name: "s".into(), replication: None, aggregate, per_container: f64::INFINITY, latency: 0.25, work: 0.0 }
    }

    fn cluster(nodes: u32, containers: u32, node_cache: bool) -> Cluster {
        Cluster { nodes, containers, cores: 4.0, network: f64::INFINITY, stagger: 0.0, node_cache }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "found {found}, expected {expected}");
    }

    #[test]
    fn one_container_alone_is_the_sum_of_its_parts() {
        let outcome = simulate(&cluster(1, 1, true), &store(f64::INFINITY), &demand());
        near(outcome.ready, 0.25 + 1.0 + 8.0 / 4.0);
        near(outcome.last, outcome.ready + 2.0 + 0.5);
        near(outcome.work, 1.0 + 8.0 + 2.0);
        // The network is slower than four cores: fetching and working overlap.
        let outcome = simulate(&cluster(1, 1, true), &store(20.0), &demand());
        near(outcome.ready, 0.25 + 1.0 + 5.0);
    }

    #[test]
    fn containers_of_a_node_build_once() {
        let shared = simulate(&cluster(1, 4, true), &store(20.0), &demand());
        near(shared.ready, 0.25 + 1.0 + 5.0);
        near(shared.fetched, 100.0);
        let apart = simulate(&cluster(1, 4, false), &store(20.0), &demand());
        near(apart.ready, 0.25 + 1.0 + 20.0);
        near(apart.fetched, 400.0);
        near(apart.written, 1200.0);
        assert!(apart.waited > shared.waited && apart.work > shared.work);
    }

    #[test]
    fn nodes_share_the_store_and_nothing_else() {
        let few = simulate(&cluster(1, 2, true), &store(1000.0), &demand());
        let many = simulate(&cluster(50, 2, true), &store(1000.0), &demand());
        near(few.ready, 0.25 + 1.0 + 2.0);
        near(many.ready, 0.25 + 1.0 + 5.0);
        near(many.fetched, 5000.0);
    }

    #[test]
    fn more_containers_than_cores_take_turns() {
        let outcome = simulate(&cluster(1, 8, true), &store(f64::INFINITY), &demand());
        // Eight fixed parts and eight commands on four cores.
        near(outcome.last, 0.25 + 2.0 + 2.0 + 4.0 + 0.5);
        // Threads of a command help it where it is alone.
        let threads = Demand { threads: 2.0, ..demand() };
        near(simulate(&cluster(1, 8, true), &store(f64::INFINITY), &threads).last, outcome.last);
        near(simulate(&cluster(1, 1, true), &store(f64::INFINITY), &threads).last, 0.25 + 1.0 + 2.0 + 1.0 + 0.5);
    }

    #[test]
    fn who_comes_later_finds_what_is_there() {
        let late = Cluster { stagger: 100.0, ..cluster(1, 2, true) };
        let outcome = simulate(&late, &store(f64::INFINITY), &demand());
        near(outcome.last, 100.0 + 0.25 + 1.0 + 2.0 + 0.5);
        assert_eq!(simulate(&late, &store(f64::INFINITY), &demand()), outcome);
    }

    #[test]
    fn without_network_it_ends() {
        let outcome = simulate(&cluster(1, 1, true), &store(0.0), &demand());
        near(outcome.last, 0.0);
    }
}
