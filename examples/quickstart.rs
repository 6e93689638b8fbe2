//! Opens a store, writes, reads, scans, and shows what one sync was shared by.
//!
//! Run it with `cargo run --release --example quickstart`.

use futures::TryStreamExt;
use ringcask::{Db, Durability};

#[tokio::main]
async fn main() -> Result<(), ringcask::Error> {
    let dir = std::env::temp_dir().join("ringcask-quickstart");
    let db = Db::open(&dir).await?;

    // Acknowledged means on disk.
    db.put("user:1", "Ada").await?;
    println!("user:1 is {:?}", db.get("user:1").await?);

    // A thousand puts at once share a few syncs.
    let puts = (0..1000).map(|n| db.put(format!("event:{n:04}"), format!("payload {n}")));
    futures::future::try_join_all(puts).await?;
    let total = db.stats().total();
    println!("{} puts, {} commits, {} syncs", total.puts, total.commits, total.syncs);

    // Not worth waiting for the disk.
    db.put("hits", "17").durability(Durability::Buffered).await?;

    let first: Vec<_> = db.scan().prefix("event:").limit(3).try_collect().await?;
    println!("the first events: {first:?}");

    println!("user:1 was there: {}", db.del("user:1").await?);
    db.close().await
}
