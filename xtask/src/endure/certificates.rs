//! Certificates that live 20 s, under load, with streams that outlive thirty of them.

use super::Verdict;
use super::mesh::Mesh;
use std::time::Duration;

pub fn run(mesh: &Mesh, rate: u32, time: Duration) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let beside = [
        mesh.load("east/shop/frontend", "GET http://reviews:9080/", rate, time),
        mesh.load("east/shop/frontend", "GET http://search:9080/", rate / 4, time),
        mesh.load("north/shop/frontend", "grpc://cart.shop.svc.clusterset.local:7070/shop.Cart/Get", rate / 10, time),
        mesh.hold("east/shop/frontend", "tcp://ledger:5432", 10, time),
        mesh.hold("north/shop/frontend", "tcp://ledger:5432", 10, time),
        mesh.hold("east/shop/frontend", "grpc://cart:7070/shop.Cart/Watch", 10, time),
        mesh.hold("north/shop/frontend", "grpc://cart.shop.svc.clusterset.local:7070/shop.Cart/Watch", 10, time),
    ];
    for running in beside {
        let (name, report) = running.join()?;
        println!("{name}: {} of {} failed, answered by {}", report["failed"], report["total"], report["destinations"]);
        verdict.none_failed(&name, &report);
    }
    Ok(verdict)
}
