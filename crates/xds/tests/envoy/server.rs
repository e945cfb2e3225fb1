//! Our server on a loopback port, and what it hears.

use crate::snapshot::Mesh;
use fairlead_xds::ResourceView;
use fairlead_xds::server::{
    Discovery, DiscoveryService, Ended, Event, Hello, Identified, Refusal, StreamId, Views, builder,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

/// Far beyond what anything here takes: it only keeps a broken test from hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

type Publisher = watch::Sender<Arc<dyn ResourceView>>;

#[derive(Debug)]
pub enum Heard {
    Connected,
    Event(Event),
    Disconnected(#[expect(dead_code, reason = "shown when a test fails")] Ended),
}

struct Directory {
    views: Mutex<Publisher>,
    heard: mpsc::UnboundedSender<Heard>,
}

pub struct Running {
    pub address: SocketAddr,
    directory: Arc<Directory>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

pub async fn serve(first: Mesh) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (send, heard) = mpsc::unbounded_channel();
    let directory = Arc::new(Directory { views: Mutex::new(publisher(&first)), heard: send });
    let discovery: Arc<dyn Discovery<()>> = directory.clone();
    let service = DiscoveryService::new(discovery, Default::default());
    let incoming = TcpListenerStream::new(listener).map(|io| io.map(|io| Identified::new(io, ())));
    tokio::spawn(builder().add_service(service.into_server()).serve_with_incoming(incoming));
    Running { address, directory, heard }
}

impl Running {
    pub fn publish(&self, mesh: Mesh) {
        self.directory.views.lock().unwrap().send_replace(Arc::new(mesh.snapshot()));
    }

    /// Ends the stream; the next one sees `mesh`.
    pub fn put_out(&self, mesh: Mesh) {
        *self.directory.views.lock().unwrap() = publisher(&mesh);
    }

    /// Skips until something that `pick` takes.
    pub async fn hear_until<T>(&mut self, pick: impl Fn(&Heard) -> Option<T>) -> T {
        let mut skipped = Vec::new();
        loop {
            let Ok(heard) = tokio::time::timeout(PATIENCE, self.heard.recv()).await else {
                panic!("not heard, but: {skipped:#?}");
            };
            let heard = heard.expect("a server");
            if let Some(picked) = pick(&heard) {
                return picked;
            }
            skipped.push(heard);
        }
    }

    pub async fn settled(&mut self, generation: u64) -> usize {
        self.hear_until(|heard| match heard {
            Heard::Event(Event::Settled { generation: g, rejected }) if *g == generation => Some(*rejected),
            _ => None,
        })
        .await
    }

    /// As `settled`, but after a type was acked: a new client asks for one type after the other.
    pub async fn settled_with(&mut self, type_url: &str, generation: u64) -> usize {
        self.hear_until(|heard| match heard {
            Heard::Event(Event::Acked { type_url: t, generation: g, .. }) => {
                (**t == *type_url && *g == generation).then_some(())
            }
            _ => None,
        })
        .await;
        self.settled(generation).await
    }
}

#[tonic::async_trait]
impl Discovery<()> for Directory {
    async fn connect(&self, _: Hello<()>) -> Result<Views, Refusal> {
        let _ = self.heard.send(Heard::Connected);
        Ok(self.views.lock().unwrap().subscribe())
    }
    fn event(&self, _: StreamId, event: Event) {
        let _ = self.heard.send(Heard::Event(event));
    }
    fn disconnected(&self, _: StreamId, why: Ended) {
        let _ = self.heard.send(Heard::Disconnected(why));
    }
}

fn publisher(mesh: &Mesh) -> Publisher {
    watch::channel(Arc::new(mesh.snapshot()) as Arc<dyn ResourceView>).0
}
