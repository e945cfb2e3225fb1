//! Both shells over loopback connections.

use crate::bench::{CDS, OWN, view};
use fairlead_proto::discovery::{AggregatedDiscoveryClient, DiscoveryRequest};
use fairlead_runtime::{Backoff, Drain, TaskGroup};
use fairlead_xds::client::{
    ChannelOptions, Client, ClientConfig, ClientStatus, Handler, Rejection, Saved, Update, channel, client, connector,
};
use fairlead_xds::server::{
    Discovery, DiscoveryService, Ended, Event, Hello, Identified, Refusal, ServiceConfig, StreamId, Views, builder,
};
use fairlead_xds::{Resource, ResourceView, Snapshot};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

/// Far beyond what anything here takes: it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Caller(&'static str);

#[derive(Debug, PartialEq)]
enum Heard {
    Connected { caller: &'static str, node: String, freshness: String },
    Event(Event),
    Disconnected(Ended),
}

struct Directory {
    views: watch::Sender<Arc<dyn ResourceView>>,
    heard: mpsc::UnboundedSender<Heard>,
    refusal: Option<Refusal>,
}

#[tonic::async_trait]
impl Discovery<Caller> for Directory {
    async fn connect(&self, hello: Hello<Caller>) -> Result<Views, Refusal> {
        let (caller, node) = (hello.client.0, hello.node.id);
        let _ = self.heard.send(Heard::Connected { caller, node, freshness: hello.freshness });
        self.refusal.clone().map_or_else(|| Ok(self.views.subscribe()), Err)
    }
    fn event(&self, _: StreamId, event: Event) {
        let _ = self.heard.send(Heard::Event(event));
    }
    fn disconnected(&self, _: StreamId, why: Ended) {
        let _ = self.heard.send(Heard::Disconnected(why));
    }
}

struct Running {
    address: String,
    directory: Arc<Directory>,
    heard: mpsc::UnboundedReceiver<Heard>,
    drain: Drain,
    tasks: TaskGroup,
}

async fn serve(first: Snapshot, refusal: Option<Refusal>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (send, heard) = mpsc::unbounded_channel();
    let (views, _) = watch::channel(Arc::new(first) as Arc<dyn ResourceView>);
    let directory = Arc::new(Directory { views, heard: send, refusal });
    let drain = Drain::new();
    let config = ServiceConfig { drain: drain.clone(), ..Default::default() };
    let service = DiscoveryService::new(directory.clone() as Arc<dyn Discovery<Caller>>, config);
    let incoming = TcpListenerStream::new(listener).map(|io| io.map(|io| Identified::new(io, Caller("loopback"))));
    let tasks = TaskGroup::new("server");
    tasks.spawn("serve", async move {
        builder().add_service(service.into_server()).serve_with_incoming(incoming).await.unwrap();
    });
    Running { address, directory, heard, drain, tasks }
}

impl Running {
    fn publish(&self, view: Snapshot) {
        self.directory.views.send_replace(Arc::new(view));
    }

    async fn hear(&mut self) -> Heard {
        tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("in time").expect("a server")
    }

    /// Skips until something that `pick` takes.
    async fn hear_until<T>(&mut self, pick: impl Fn(&Heard) -> Option<T>) -> T {
        loop {
            let heard = self.hear().await;
            if let Some(picked) = pick(&heard) {
                return picked;
            }
        }
    }

    async fn settled(&mut self, generation: u64) -> usize {
        self.hear_until(|heard| match heard {
            Heard::Event(Event::Settled { generation: g, rejected }) if *g == generation => Some(*rejected),
            _ => None,
        })
        .await
    }
}

/// Reports each update as text; refuses versions called `bad`.
struct Reporter(mpsc::UnboundedSender<String>);

impl Handler for Reporter {
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
        let restored = update.restored.then(|| "restored".to_owned());
        let upserts = update.upserts.iter().map(|r| format!("{}@{}", r.name, r.version));
        let removed = update.removed.iter().map(|name| format!("-{name}"));
        let all: Vec<String> = restored.into_iter().chain(upserts).chain(removed).collect();
        let _ = self.0.send(all.join(" "));
        let bad = update.upserts.iter().filter(|r| *r.version == *"bad");
        bad.map(|r| Rejection::new(r.name.clone(), "it says so itself")).collect()
    }
}

struct Asking {
    client: Client,
    updates: mpsc::UnboundedReceiver<String>,
    tasks: TaskGroup,
}

fn ask(servers: &[&str], saved: Option<Saved>) -> Asking {
    let connect = connector(|server: String| async move { TcpStream::connect(server).await });
    let (send, updates) = mpsc::unbounded_channel();
    let config = ClientConfig {
        saved,
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(10)),
        ..ClientConfig::new(servers.iter().copied()).node_id("east/shop/cart-0")
    };
    let (client, run) = client(config, connect, Reporter(send));
    let tasks = TaskGroup::new("client");
    tasks.spawn("discovery", run);
    Asking { client, updates, tasks }
}

impl Asking {
    async fn update(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.updates.recv()).await.expect("in time").expect("a client")
    }

    async fn status(&self, until: impl Fn(&ClientStatus) -> bool) -> ClientStatus {
        let mut status = self.client.status();
        tokio::time::timeout(PATIENCE, status.wait_for(|s| until(s))).await.expect("in time").unwrap().clone()
    }
}

#[tokio::test]
async fn a_change_reaches_the_client_and_its_answer_the_server() {
    let mut server = serve(view(1, &[(OWN, "a@1")]), None).await;
    let mut asking = ask(&[&server.address], None);
    asking.client.subscribe_all(OWN);
    assert_eq!(asking.update().await, "a@1");
    let connected = Heard::Connected { caller: "loopback", node: "east/shop/cart-0".into(), freshness: String::new() };
    assert_eq!(server.hear().await, connected);
    assert_eq!(server.settled(1).await, 0);

    server.publish(view(2, &[(OWN, "a@bad b@1")]));
    assert_eq!(asking.update().await, "a@bad b@1");
    let (names, detail) = server
        .hear_until(|heard| match heard {
            Heard::Event(Event::Nacked { names, detail, generation: 2, .. }) => Some((names.clone(), detail.clone())),
            _ => None,
        })
        .await;
    assert_eq!((names, detail.as_str()), (vec!["a".to_owned()], "a: it says so itself"));
    assert_eq!(server.settled(2).await, 1);

    let saved = asking.client.saved().await.unwrap();
    let held: Vec<&str> = saved.resources().map(|(_, r)| &*r.version).collect();
    assert_eq!(held, ["1", "1"], "the last good version of what was refused");

    asking.client.subscribe("example/OnDemand", ["later"]);
    assert_eq!(asking.update().await, "-later");
    let on_demand = [Resource::new("later", "1", &b"x"[..])];
    server.publish(view(3, &[(OWN, "b@1")]).with("example/OnDemand", on_demand));
    let mut both = [asking.update().await, asking.update().await];
    both.sort();
    assert_eq!(both, ["-a", "later@1"]);

    drop(asking.client);
    asking.tasks.join().await;
    let why = server.hear_until(|heard| matches!(heard, Heard::Disconnected(_)).then_some(())).await;
    assert_eq!(why, ());
    server.tasks.shutdown().await;
}

#[tokio::test]
async fn a_server_that_drains_or_is_too_old_is_left_for_another() {
    let behind = serve(view(1, &[]), Some(Refusal::Stale("this server knows less".into()))).await;
    let first = serve(view(5, &[(OWN, "a@1 b@1")]), None).await;
    let mut asking = ask(&[&behind.address, &first.address], None);
    asking.client.subscribe_all(OWN);
    assert_eq!(asking.update().await, "a@1 b@1");
    let status = asking.status(|status| status.synced).await;
    assert_eq!((status.server.as_deref(), status.freshness.as_str()), (Some(first.address.as_str()), "g5"));

    let mut second = serve(view(6, &[(OWN, "a@1 c@1")]), None).await;
    asking.client.set_servers(vec![first.address.clone(), behind.address.clone(), second.address.clone()]);
    first.drain.run(Duration::from_secs(30)).await;
    assert_eq!(asking.update().await, "c@1 -b", "differences only, from whichever server");
    let connected = second.hear().await;
    assert!(matches!(connected, Heard::Connected { ref freshness, .. } if freshness == "g5"), "{connected:?}");
    assert_eq!(second.settled(6).await, 0);
}

#[tokio::test]
async fn a_client_that_is_put_out_comes_back_and_starts_from_what_it_kept() {
    let server = serve(view(1, &[(OWN, "a@1 b@1")]), None).await;
    let mut asking = ask(&[&server.address], None);
    asking.client.subscribe_all(OWN);
    asking.client.subscribe(CDS, ["only"]);
    assert_eq!(asking.update().await, "a@1 b@1");
    assert_eq!(asking.update().await, "-only");
    let saved = Saved::decode(&asking.client.saved().await.unwrap().encode()).unwrap();
    drop(asking.client);
    asking.tasks.join().await;
    server.tasks.shutdown().await;

    // The next process finds no server at first, and works from what was kept.
    let mut asking = ask(&[&server.address], Some(saved));
    assert_eq!(asking.update().await, "restored a@1 b@1");
    assert_eq!(asking.update().await, "restored");
    let status = asking.status(|status| status.last_error.is_some()).await;
    assert_eq!((status.server, status.synced), (None, false));
    let mut next = serve(view(9, &[(OWN, "a@1 b@2"), (CDS, "only@1 other@1")]), None).await;
    asking.client.set_servers(vec![next.address.clone()]);
    let mut both = [asking.update().await, asking.update().await];
    both.sort();
    assert_eq!(both, ["b@2", "only@1"]);
    assert_eq!(next.settled(9).await, 0);
}

#[tokio::test]
async fn state_of_the_world_over_the_wire() {
    let mut server = serve(view(1, &[(CDS, "a@1")]), None).await;
    let connect = connector(|server: String| async move { TcpStream::connect(server).await });
    let channel = channel(&server.address, connect, ChannelOptions::default()).await.unwrap();
    let (requests, outgoing) = mpsc::channel(4);
    let request = |nonce: &str| DiscoveryRequest {
        type_url: CDS.to_owned(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    };
    requests.send(request("")).await.unwrap();
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let discovery = AggregatedDiscoveryClient::new(channel, 1024 * 1024);
    let mut responses = discovery.state_of_the_world(outgoing).await.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!(first.resources, ["a@1"]);
    requests.send(request(&first.nonce)).await.unwrap();
    assert_eq!(server.settled(1).await, 0);
    server.publish(view(2, &[(CDS, "a@2 b@1")]));
    assert_eq!(responses.message().await.unwrap().unwrap().resources, ["a@2", "b@1"]);

    server.drain.start();
    let end = responses.message().await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
}

#[tokio::test]
async fn a_client_that_breaks_a_limit_loses_its_stream() {
    let mut server = serve(view(1, &[]), None).await;
    let mut asking = ask(&[&server.address], None);
    asking.client.subscribe(OWN, ["x".repeat(3_000)]);
    let why = server.hear_until(|heard| match heard {
        Heard::Disconnected(why) => Some(why.clone()),
        _ => None,
    });
    assert!(matches!(why.await, Ended::Violation(_)));
    let status = asking.status(|status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("longer than 2048 bytes"));
    assert!(asking.updates.try_recv().is_err());
}
