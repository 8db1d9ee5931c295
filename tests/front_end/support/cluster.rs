//! Several front ends before the same replicas, each with files of its own.

use std::net::{SocketAddr, TcpListener};

use super::{CNAME, Environment, Front, Replica, eventually};

/// The secret that they know each other by.
pub const SECRET: &str = "a-secret-of-front-ends-0123456789abcdef";

/// The front ends of one cluster; they stop when this is dropped.
pub struct Cluster {
    pub fronts: Vec<Front>,
    pub addresses: Vec<SocketAddr>,
}

impl Cluster {
    /// `count` front ends with a service `iris` on `replicas`, and what `keys` adds to the defaults.
    pub async fn start(count: usize, replicas: &[&Replica], keys: &str) -> Self {
        Self::of(count, |environment| environment.set("defaults", keys).service("iris", replicas, "")).await
    }

    /// The same with all that `fill` adds to each one's files.
    pub async fn of(count: usize, fill: impl Fn(Environment) -> Environment) -> Self {
        let addresses = free_addresses(count);
        let fronts = addresses.iter().map(|own| member(*own, &addresses, &fill).start()).collect();
        let cluster = Self { fronts, addresses };
        cluster.until_settled().await;
        cluster
    }

    /// Waits until all that are there have agreed on who they are, and every slot is where it belongs.
    pub async fn until_settled(&self) {
        for front in &self.fronts {
            until_members(front, self.fronts.len()).await;
        }
    }

    /// Which of the front ends has the service `iris`, and which have not.
    pub async fn home(&self) -> (usize, Vec<usize>) {
        let home = owner(&self.fronts[0]).await;
        let at = |n: &usize| self.addresses[*n].to_string() == home;
        let (home, others): (Vec<_>, Vec<_>) = (0..self.fronts.len()).partition(at);
        let [home] = home[..] else { panic!("one home") };
        (home, others)
    }
}

/// The files of the front end at `own`.
pub fn member(own: SocketAddr, all: &[SocketAddr], fill: &impl Fn(Environment) -> Environment) -> Environment {
    let members: Vec<_> = all.iter().map(ToString::to_string).collect();
    member_by(own, &format!("members = {members:?}"), fill)
}

/// The files of the front end at `own`, to which `named` says who the others are.
pub fn member_by(own: SocketAddr, named: &str, fill: &impl Fn(Environment) -> Environment) -> Environment {
    let keys = format!("listen = '{own}'\nsecret_file = 'cluster.secret'\n{named}");
    let environment = fill(Environment::new().cname(CNAME).set("cluster", &keys));
    environment.write("cluster.secret", &format!("{SECRET}\n"));
    environment
}

/// Waits until a front end has agreed with so many in all, itself among them, and has what is its own.
pub async fn until_members(front: &Front, count: usize) {
    eventually("the front ends have agreed", async || {
        let seen = see(front).await;
        let members = seen["members"].as_array().expect("a list");
        let there = members.iter().filter(|member| member["member"] == true);
        seen["settled"] == true && there.count() == count
    })
    .await;
}

/// `/v1/cluster`.
pub async fn see(front: &Front) -> serde_json::Value {
    front.admin("GET /v1/cluster HTTP/1.1").await.json()
}

/// The front end that has the service `iris`.
pub async fn owner(front: &Front) -> String {
    let seen = see(front).await;
    seen["services"][0]["deployments"][0]["owners"][0]["address"].as_str().expect("an owner").to_owned()
}

/// Ports that nobody has now, which is all that can be had.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a port")).collect();
    held.iter().map(|held| held.local_addr().expect("an address")).collect()
}
