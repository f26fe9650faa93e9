//! Flags of what is done to a cluster: its tokens, members and CA.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    pub deed: TokenDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

/// Where the cluster's CA, tokens and revocations are.
#[derive(Args)]
pub struct ClusterFolder {
    /// The supernode's data directory
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "cluster_dir")]
    pub data_dir: Option<PathBuf>,
    /// The folder that the supernodes have as --cluster-dir [default: <data-dir>/identity]
    #[arg(long, global = true, value_name = "DIR")]
    pub cluster_dir: Option<PathBuf>,
    /// For programs
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Args)]
pub struct Node {
    #[command(subcommand)]
    pub deed: NodeDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

#[derive(Subcommand)]
pub enum NodeDeed {
    /// Turn a node out: supernodes and peers refuse it and drop its connections within a minute
    Revoke {
        /// Its id, as `longshore status` shows it
        id: String,
        /// For how long: a certificate lasts a day, so that its key is worthless after that, but a join token brings another
        #[arg(long, value_name = "TIME", default_value = "30d")]
        r#for: String,
    },
    /// List the nodes that are turned out
    List,
    /// Let a node in again; where supernodes have copies of the cluster's folder, at each of them
    Allow {
        /// Its id
        id: String,
    },
}

#[derive(Args)]
pub struct Ca {
    #[command(subcommand)]
    pub deed: CaDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

#[derive(Subcommand)]
pub enum CaDeed {
    /// Show the CA, and how far a rotation is
    Status,
    /// Begin a rotation: a new CA issues from now on, and the present one is believed beside it. All nodes must be of this
    /// release; tokens made so far work until the end
    Rotate,
    /// End a rotation: the former CA is believed no more, and its join tokens end
    Finish {
        /// Although certificates of the former CA may still be good: nodes that have not renewed must enrol again
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
pub enum TokenDeed {
    /// Make a token and print it
    Create {
        /// How long it is good for, for example 24h [default: until revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How many nodes may join with it [default: any number]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// What it is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
    /// List the tokens; their secrets are not kept
    List,
    /// Make a token useless; nodes that joined with it stay
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}
