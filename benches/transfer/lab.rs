//! What the measurements share: content that lies in one node's store and in a registry, the members' identities,
//! and one transfer between two processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::identity::{Authority, Identity};
use common::node::Role as NodeRole;
use common::piece::{Geometry, PieceIndex};
use common::task::{Source, TaskId};
use peer::store::{Blob, Limits, Store, StoreOptions};

/// The repository that the content is a blob of.
const REPOSITORY: &str = "bench/content";
const STORE: StoreOptions = StoreOptions { limits: Limits::NONE, durable: true };

pub(crate) struct Lab {
    folder: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) geometry: Geometry,
}

// === impl Lab ===

impl Lab {
    /// Makes the content, puts it where it is served from, and makes two members.
    pub(crate) fn make(folder: &Path, length: u64) -> Self {
        let geometry = Geometry::of(length).unwrap();
        let authority = Authority::open(&folder.join("ca")).unwrap();
        for member in ["parent", "child"] {
            let identity = Identity::open(&folder.join(member).join("identity")).unwrap();
            let issued =
                authority.issue(&identity.csr().unwrap(), NodeRole::Peer, SystemTime::now()).unwrap();
            identity.install(&issued.chain).unwrap();
        }
        let mut hasher = Hasher::new();
        for index in 0..geometry.pieces() {
            hasher.update(&piece(geometry, PieceIndex(index)));
        }
        let lab = Self { folder: folder.to_owned(), digest: hasher.finish(), geometry };
        let store = lab.store("parent");
        let blob = store.create(lab.task(), geometry, "").unwrap();
        for index in (0..geometry.pieces()).map(PieceIndex) {
            let bytes = piece(geometry, index);
            let digest = Digest::of(&bytes);
            blob.write_piece(index, &[bytes], digest).unwrap();
        }
        blob.prove().unwrap();
        fs::write(folder.join("lab"), format!("{} {length}", lab.digest)).unwrap();
        lab.write_digests(&blob);
        lab.fill_registry(&blob);
        store.close();
        lab
    }

    /// What [`Lab::make`] made, for a child.
    pub(crate) fn open(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("lab")).unwrap();
        let (digest, length) = text.split_once(' ').unwrap();
        let geometry = Geometry::of(length.parse().unwrap()).unwrap();
        Self { folder: folder.to_owned(), digest: digest.parse().unwrap(), geometry }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn task(&self) -> TaskId {
        TaskId::of_digest(self.digest)
    }

    pub(crate) fn source(&self) -> Source {
        Source::of_digest("https://origin.invalid/content", self.digest)
    }

    pub(crate) fn identity(&self, member: &str) -> Identity {
        Identity::open(&self.folder.join(member).join("identity")).unwrap()
    }

    pub(crate) fn store(&self, member: &str) -> Store {
        Store::open(&self.folder.join(member), STORE).unwrap()
    }

    /// The digests of all pieces.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let bytes = fs::read(self.folder.join("digests")).unwrap();
        bytes.as_chunks().0.iter().map(|digest| Digest(*digest)).collect()
    }

    /// The registry's folder.
    pub(crate) fn registry(&self) -> PathBuf {
        self.folder.join("registry")
    }

    /// The content as a blob of the registry at `address`.
    pub(crate) fn url(&self, address: &str) -> String {
        format!("{address}/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    fn write_digests(&self, blob: &Blob) {
        let digests = blob.pieces().unwrap();
        let bytes: Vec<u8> = digests.iter().flat_map(|(_, digest)| digest.0).collect();
        fs::write(self.folder.join("digests"), bytes).unwrap();
    }

    /// Puts the content where docker-registry looks for it.
    fn fill_registry(&self, blob: &Blob) {
        let (hex, root) = (self.digest.hex(), self.registry().join("store/docker/registry/v2"));
        let data = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
        let layer = root.join("repositories").join(REPOSITORY).join("_layers/sha256").join(&hex);
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&layer).unwrap();
        fs::hard_link(blob.path(), data.join("data")).unwrap();
        fs::write(layer.join("link"), self.digest.to_string()).unwrap();
    }
}

/// Bytes that nothing can compress, different in every piece.
pub(crate) fn piece(geometry: Geometry, index: PieceIndex) -> Bytes {
    let words = geometry.range(index).len().div_ceil(8);
    let mut state = u64::from(index.0) << 32;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    let bytes: Vec<u8> = (0..words).flat_map(|_| next().to_le_bytes()).collect();
    Bytes::from(bytes).slice(..geometry.range(index).len() as usize)
}
