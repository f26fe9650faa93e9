//! Flags of what is done to a cluster: its tokens, members and CA.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const TOKEN: &str = "\
Examples:
  longshore token create --expires 24h --uses 50 --note 'rack 7'
  longshore token create --cluster-dir /etc/longshore/cluster > join-token
  longshore token list
  longshore token revoke 1e1a4145";

#[derive(Args)]
#[command(after_help = TOKEN)]
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

const NODE: &str = "\
Examples:
  longshore node revoke 3914195137405c98a09f553862919473 --for 90d
  longshore node list
  longshore node allow 3914195137405c98a09f553862919473

`longshore peers` on the supernode's machine shows the ids. Revoke its join token, too: see `longshore token`.";

#[derive(Args)]
#[command(after_help = NODE)]
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

const CA: &str = "\
Examples:
  longshore ca rotate     begin; nobody is cut off
  longshore ca status     when it may end: a day later
  longshore ca finish     end; make a backup of the cluster's folder before and after";

#[derive(Args)]
#[command(after_help = CA)]
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
