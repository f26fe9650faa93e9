//! Buckets over object_store's memory: two supernodes of one cluster, and one of another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::digest::Digest;
use common::identity::{Authority, Sealer};
use common::piece::{ByteRange, Geometry, PieceIndex};
use common::task::TaskId;
use futures_util::StreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore as _;
use peer::store::{Store, StoreOptions};
use peer::vault::{Kept, Trouble, Vault as _};
use tempfile::TempDir;

use super::Bucket;

const PREFIX: &str = "images/one";
const URL: &str = "https://registry.example/v2/a/blobs/x";

/// One supernode's side of the bucket.
struct Side {
    dir: TempDir,
    store: Store,
    bucket: Bucket,
}

struct Cluster {
    ca: TempDir,
    objects: Arc<InMemory>,
}

// === impl Cluster ===

impl Cluster {
    fn new() -> Self {
        Self { ca: TempDir::new().unwrap(), objects: Arc::new(InMemory::new()) }
    }

    fn side(&self) -> Side {
        self.side_in(TempDir::new().unwrap())
    }

    fn side_in(&self, dir: TempDir) -> Side {
        let store =
            Store::open(dir.path(), StoreOptions { durable: true, ..StoreOptions::default() }).unwrap();
        let sealer = Sealer::new(&Authority::open(self.ca.path()).unwrap());
        let (objects, name) = (self.objects.clone(), "s3://test".to_owned());
        let bucket = Bucket::over(objects, name, PREFIX, dir.path(), sealer, store.clone()).unwrap();
        Side { dir, store, bucket }
    }
}

// === impl Side ===

impl Side {
    /// A blob in the store.
    fn proven(&self, bytes: &Bytes) -> TaskId {
        let (task, geometry) =
            (TaskId::of_digest(Digest::of(bytes)), Geometry::of(bytes.len() as u64).unwrap());
        let blob = self.store.create(task, geometry, URL).unwrap();
        for index in (0..geometry.pieces()).map(PieceIndex) {
            let range = geometry.range(index);
            let piece = bytes.slice(range.start as usize..range.end as usize);
            let digest = Digest::of(&piece);
            blob.write_piece(index, &[piece], digest).unwrap();
        }
        blob.prove().unwrap();
        task
    }

    /// Brings blobs until the task is there.
    async fn bring(&self, task: TaskId) -> Kept {
        let there = async {
            loop {
                if let Some(kept) = self.bucket.find(task).await {
                    return kept;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            kept = tokio::time::timeout(Duration::from_secs(60), there) => kept.expect("it is brought"),
            () = self.bucket.clone().run() => unreachable!("it runs until it is dropped"),
        }
    }

    async fn read(&self, task: TaskId, kept: &Kept, range: ByteRange) -> Result<Vec<u8>, Trouble> {
        let mut stream = self.bucket.read(task, kept, range).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    }
}

fn made_up(length: usize) -> Bytes {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn what_one_supernode_has_proven_another_of_its_cluster_finds_and_no_stranger_believes() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.side(), cluster.side());
    for length in [0, 5, 300 * 1024, 20 << 20] {
        let content = made_up(length);
        let task = one.proven(&content);
        assert_eq!(two.bucket.find(task).await, None);
        one.bring(task).await;
        let kept = two.bucket.find(task).await.expect("the other one finds it");
        assert_eq!((kept.geometry.length(), kept.source_url.as_str()), (length as u64, URL));
        if length > 0 {
            let range = ByteRange::new(length as u64 / 2, length as u64);
            assert!(two.read(task, &kept, range).await.unwrap() == content[length / 2..]);
        }
        let hex = task.hex();
        let path = format!("{PREFIX}/blobs/{}/{hex}", &hex[..2]);
        let plain = cluster.objects.get(&path.as_str().into()).await.unwrap().bytes().await.unwrap();
        assert!(plain == content, "the object is the content, for everybody to read");
        let strangers = Cluster { ca: TempDir::new().unwrap(), objects: cluster.objects.clone() };
        assert_eq!(strangers.side().bucket.find(task).await, None);
    }
    assert!(one.bucket.0.leftovers.all().is_empty());
}

#[tokio::test]
async fn a_shortened_or_lost_object_is_spoilt_and_what_is_forgotten_is_brought_anew() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.side(), cluster.side());
    let content = made_up(12 << 20);
    let task = one.proven(&content);
    let kept = one.bring(task).await;
    let path = one.bucket.0.blob(task);
    let (front, back) = (ByteRange::new(0, 100), ByteRange::new(11 << 20, 12 << 20));
    cluster.objects.put(&path, content.slice(..8 << 20).into()).await.unwrap();
    assert_eq!(two.read(task, &kept, front).await, Err(Trouble::Spoilt));
    cluster.objects.delete(&path).await.unwrap();
    assert_eq!(two.read(task, &kept, back).await, Err(Trouble::Spoilt));
    two.bucket.forget(task).await;
    assert_eq!(one.bucket.find(task).await, None);
    two.proven(&content);
    two.bring(task).await;
    assert!(one.read(task, &kept, back).await.unwrap() == content[11 << 20..]);
}

#[tokio::test]
async fn a_wrong_object_is_replaced_even_where_it_could_not_be_deleted() {
    let cluster = Cluster::new();
    let side = cluster.side();
    let content = made_up(1 << 20);
    let task = side.proven(&content);
    let kept = side.bring(task).await;
    cluster.objects.put(&side.bucket.0.blob(task), Bytes::from(vec![0; 1 << 20]).into()).await.unwrap();
    // What `forget` notes before it tries to delete.
    side.bucket.0.queue.spoilt(task);
    side.bucket.keep(task);
    let whole = ByteRange::new(0, 1 << 20);
    let healed = async {
        while side.read(task, &kept, whole).await.unwrap() != content {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        healed = tokio::time::timeout(Duration::from_secs(60), healed) => healed.expect("it is replaced"),
        () = side.bucket.clone().run() => unreachable!("it runs until it is dropped"),
    }
}

#[tokio::test]
async fn a_damaged_disk_spoils_no_bucket() {
    let cluster = Cluster::new();
    let side = cluster.side();
    let (damaged, good) = (side.proven(&made_up(700_000)), side.proven(&made_up(5)));
    let path = side.store.get(damaged).unwrap().unwrap().path().to_owned();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[600_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    side.bring(good).await;
    side.bucket.keep(good);
    assert_eq!(side.bucket.find(damaged).await, None);
    assert!(cluster.objects.head(&side.bucket.0.blob(damaged)).await.is_err());
}

#[tokio::test]
async fn an_upload_that_was_cut_is_aborted_at_the_next_start_and_made_anew() {
    let cluster = Cluster::new();
    let side = cluster.side();
    let content = made_up(9 << 20);
    let task = side.proven(&content);
    let path = side.bucket.0.blob(task);
    let id = cluster.objects.create_multipart(&path).await.unwrap();
    side.bucket.0.leftovers.note(task, &id).unwrap();
    assert_eq!(side.bucket.find(task).await, None, "what was cut looks like nothing");
    let Side { dir, store, bucket } = side;
    store.close();
    drop((store, bucket));
    let again = cluster.side_in(dir);
    again.bring(task).await;
    assert!(again.bucket.0.leftovers.all().is_empty());
    let part = cluster.objects.put_part(&path, &id, 0, content.into()).await;
    assert!(part.is_err(), "the old upload is gone");
    assert!(again.dir.path().exists());
}
