//! Simulates nodes, containers and a store, from the first start to the end of the last command.
//!
//! Time advances from one event to the next; between two events every rate is constant. All nodes are equal and start at the
//! same time, so one node with its share of the store is simulated.

use super::demand::Demand;
use super::flow::share;
use super::stores::Store;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) nodes: u32,
    /// Containers of each node.
    pub(crate) containers: u32,
    /// Cores that the containers of a node share.
    pub(crate) cores: f64,
    /// Bytes per second of a node's network.
    pub(crate) network: f64,
    /// Seconds between the starts of a node's containers.
    pub(crate) stagger: f64,
    /// Whether the containers of a node share what they build.
    pub(crate) node_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    /// Seconds from its own start until `exec`, of the slowest container.
    pub(crate) ready: f64,
    /// Seconds until the first command ends.
    pub(crate) first: f64,
    /// Seconds until half of the commands have ended.
    pub(crate) median: f64,
    /// Seconds until all commands have ended.
    pub(crate) last: f64,
    /// Seconds from start to end, summed over all executors.
    pub(crate) waited: f64,
    /// Core seconds of all nodes.
    pub(crate) work: f64,
    /// Bytes that the store sends.
    pub(crate) fetched: f64,
    /// Bytes written on each node.
    pub(crate) written: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Not started yet, or waiting without a core. Holds the seconds left.
    Waiting(f64),
    /// Computing. Holds the core seconds left and the most cores that they can use.
    Alone(f64, f64),
    /// Taking part in the extraction with this index.
    Extracting(usize),
    Over,
}

#[derive(Debug, Clone)]
struct Container {
    started: f64,
    stages: std::vec::IntoIter<Stage>,
    stage: Stage,
    ready: f64,
    ended: f64,
}

/// An extraction by one container, or by several that share the node cache: bytes to fetch and core seconds left.
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

/// Fewer seconds or bytes than this count as done, because of rounding.
const DONE: f64 = 1e-9;

pub(crate) fn simulate(cluster: &Cluster, store: &Store, demand: &Demand) -> Outcome {
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
                Stage::Extracting(index),
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

    /// Advances to the next event. Returns false if all commands have ended.
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
                Stage::Extracting(_) | Stage::Over => {}
            }
        }
        true
    }

    /// Moves each container whose stage is over to its next stage.
    fn advance_stages(&mut self) {
        for container in &mut self.containers {
            loop {
                let over = match container.stage {
                    Stage::Waiting(left) | Stage::Alone(left, _) => left <= DONE,
                    Stage::Extracting(index) => self.extractions.get(index).is_none_or(Extraction::is_over),
                    Stage::Over => break,
                };
                if !over {
                    break;
                }
                if matches!(container.stage, Stage::Extracting(_)) {
                    container.ready = self.now;
                }
                container.stage = container.stages.next().unwrap_or(Stage::Over);
                if container.stage == Stage::Over {
                    container.ended = self.now;
                }
            }
        }
    }

    /// The number of containers that take part in each extraction.
    fn builders(&self) -> Vec<usize> {
        let taking = |index: usize| self.containers.iter().filter(|c| c.stage == Stage::Extracting(index)).count();
        (0..self.extractions.len()).map(taking).collect()
    }

    /// Bytes per second of each extraction.
    fn fetching(&self, builders: &[usize]) -> Vec<f64> {
        let limit = |(extraction, builders): (&Extraction, &usize)| {
            if extraction.bytes <= DONE || *builders == 0 { 0.0 } else { self.per_container * *builders as f64 }
        };
        share(self.network, &self.extractions.iter().zip(builders).map(limit).collect::<Vec<_>>())
    }

    /// Cores of each container that computes, and of each extraction.
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

    /// Seconds until the next stage is over. `None` if nothing advances because there are no cores or no network.
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
                Stage::Extracting(_) | Stage::Over => f64::INFINITY,
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

/// What is left after `time` at `rate`. An infinite rate leaves nothing.
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
    fn simulate_one_container_sums_its_parts() {
        let outcome = simulate(&cluster(1, 1, true), &store(f64::INFINITY), &demand());
        near(outcome.ready, 0.25 + 1.0 + 8.0 / 4.0);
        near(outcome.last, outcome.ready + 2.0 + 0.5);
        near(outcome.work, 1.0 + 8.0 + 2.0);
        // The network is slower than four cores: fetching and working overlap.
        let outcome = simulate(&cluster(1, 1, true), &store(20.0), &demand());
        near(outcome.ready, 0.25 + 1.0 + 5.0);
    }

    #[test]
    fn simulate_extracts_once_per_node_with_node_cache() {
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
    fn simulate_shares_only_the_store_among_nodes() {
        let few = simulate(&cluster(1, 2, true), &store(1000.0), &demand());
        let many = simulate(&cluster(50, 2, true), &store(1000.0), &demand());
        near(few.ready, 0.25 + 1.0 + 2.0);
        near(many.ready, 0.25 + 1.0 + 5.0);
        near(many.fetched, 5000.0);
    }

    #[test]
    fn simulate_lets_containers_share_cores() {
        let outcome = simulate(&cluster(1, 8, true), &store(f64::INFINITY), &demand());
        // Eight fixed parts and eight commands on four cores.
        near(outcome.last, 0.25 + 2.0 + 2.0 + 4.0 + 0.5);
        // A command's threads make it faster only if cores are idle.
        let threads = Demand { threads: 2.0, ..demand() };
        near(simulate(&cluster(1, 8, true), &store(f64::INFINITY), &threads).last, outcome.last);
        near(simulate(&cluster(1, 1, true), &store(f64::INFINITY), &threads).last, 0.25 + 1.0 + 2.0 + 1.0 + 0.5);
    }

    #[test]
    fn simulate_late_container_finds_the_environment() {
        let late = Cluster { stagger: 100.0, ..cluster(1, 2, true) };
        let outcome = simulate(&late, &store(f64::INFINITY), &demand());
        near(outcome.last, 100.0 + 0.25 + 1.0 + 2.0 + 0.5);
        assert_eq!(simulate(&late, &store(f64::INFINITY), &demand()), outcome);
    }

    #[test]
    fn simulate_ends_without_network() {
        let outcome = simulate(&cluster(1, 1, true), &store(0.0), &demand());
        near(outcome.last, 0.0);
    }
}
