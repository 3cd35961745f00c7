//! The arguments as they stand on the command line; each command turns its own once into validated options.
// These comments are the help that a terminal shows: plain text.
#![allow(clippy::doc_markdown, clippy::doc_link_with_quotes)]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// A filesystem for experiment results: mount a cache, and ls is the query language.
#[derive(Debug, Parser)]
#[command(name = "cachedirfs", version, about, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// The cache: its directory, or where it is mounted [default: the nearest one from here upwards]
    #[arg(
        short = 'C',
        long,
        global = true,
        env = "CACHEDIRFS_CACHE",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub cache: Option<PathBuf>,
    /// Say more in the log: -v what the daemon does, -vv every request (RUST_LOG says it in detail)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a cache; comes back when the mount is live
    Mount(MountArgs),
    /// Unmount, and wait until everything is synced and the daemon has ended
    Umount(UmountArgs),
    /// Show what is mounted, or how one mount is doing
    Status(StatusArgs),
    /// Make an entry with these attributes; prints its id and its directory
    New(NewArgs),
    /// List the entries for which all of these hold
    Find(FindArgs),
    /// Show the attributes of entries
    Show(ShowArgs),
    /// Set attributes of entries
    Set(SetArgs),
    /// Remove attributes of entries
    Unset(UnsetArgs),
    /// Delete entries, attributes and contents
    Rm(RmArgs),
    /// List everything irregular in the cache; exit status 1 if there is anything
    Check(CheckArgs),
    /// Rewrite the log with one record an entry
    Compact(CompactArgs),
    /// List the distinct values of a key, with how many entries have each
    Values(ValuesArgs),
    /// Describe the keys: types, distinct values, ranges
    Schema(SchemaArgs),
    /// Show in which attributes entries differ
    Diff(DiffArgs),
    /// Run a command once for these attributes, whoever asks and from wherever
    Memo(MemoArgs),
    /// Entries that were taken out
    #[command(subcommand)]
    Trash(TrashCommand),
}

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The cache directory
    #[arg(value_name = "CACHE")]
    pub directory: PathBuf,
    /// An empty directory to mount it on
    #[arg(value_name = "MNT")]
    pub mountpoint: PathBuf,
    /// ro, allow_other, sync, refresh=SECONDS, attr_timeout=SECONDS, threads=N, nopassthrough, nokeep; others go to the kernel
    #[arg(short, long, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// The log file of the daemon
    /// [default: NAME.log in $XDG_STATE_HOME/cachedirfs, ~/.local/state/cachedirfs; /var/log/cachedirfs for root]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// Arguments of `umount`.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// The mount point
    #[arg(value_name = "MNT")]
    pub mountpoint: PathBuf,
    /// Take it out of the tree now, even if it is in use
    #[arg(short = 'z', long)]
    pub lazy: bool,
    /// How long to wait for the daemon to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub timeout: f64,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The mount point [default: all of them]
    #[arg(value_name = "MNT")]
    pub mountpoint: Option<PathBuf>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Attributes, such as lr=0.1 opt.name=adam tags='["a"]'
    #[arg(value_name = "K=V")]
    pub pairs: Vec<String>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// How a list of entries is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, cut to the width of a terminal
    Table,
    /// RFC 4180, as `table.csv` of a mount
    Csv,
    /// One exact object a line, as `table.jsonl` of a mount
    Jsonl,
    /// One id a line
    Ids,
}

/// Arguments of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// Conditions: K=V, or an expression such as 'loss < 0.5 and model ~ "vit*"'; all must hold
    #[arg(value_name = "K=V|EXPR")]
    pub conditions: Vec<String>,
    /// Order by this key; --sort=-KEY descending. Entries without it are left out
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How to print them
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// The same as --format jsonl
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The entries
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// The exact object of each, one a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The entry, unless --where says which; then what to set
    #[arg(value_name = "[ID] K=V", required = true)]
    pub words: Vec<String>,
    /// Which entries: every one that matches
    #[command(flatten)]
    pub matching: Matching,
}

/// Arguments of `unset`.
#[derive(Debug, Args)]
pub struct UnsetArgs {
    /// The entry, unless --where says which; then the keys to remove
    #[arg(value_name = "[ID] KEY", required = true)]
    pub words: Vec<String>,
    /// Which entries: every one that matches
    #[command(flatten)]
    pub matching: Matching,
}

/// Which entries a change is for.
#[derive(Debug, Args)]
pub struct Matching {
    /// Change every entry for which this holds
    #[arg(long = "where", value_name = "EXPR")]
    pub filter: Vec<String>,
    /// Change nothing: print how many entries it would be, and which
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The entries
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Move them to the trash instead: `trash restore` brings them back
    #[arg(long)]
    pub trash: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Mend what can be mended without losing anything
    #[arg(long)]
    pub repair: bool,
    /// JSON, one finding a line, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `values`.
#[derive(Debug, Args)]
pub struct ValuesArgs {
    /// The key; KEY[] for the elements of arrays
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Only of entries for which these hold
    #[arg(value_name = "K=V|EXPR")]
    pub conditions: Vec<String>,
    /// JSON, one value a line, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Only of entries for which these hold
    #[arg(value_name = "K=V|EXPR")]
    pub conditions: Vec<String>,
    /// JSON, as `schema.json` of a mount
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The entries, two or more
    #[arg(value_name = "ID", required = true, num_args = 2..)]
    pub ids: Vec<String>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `memo`.
#[derive(Debug, Args)]
pub struct MemoArgs {
    /// The attributes that say what is computed
    #[arg(value_name = "K=V", required = true)]
    pub pairs: Vec<String>,
    /// If somebody else is computing it: wait for the result
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    pub timeout: Option<f64>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// What to run, in the entry's directory; CACHEDIRFS_ID and CACHEDIRFS_DIR tell it which that is
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<std::ffi::OsString>,
}

/// The commands of `trash`.
#[derive(Debug, Subcommand)]
pub enum TrashCommand {
    /// List what is in the trash, the latest last
    List {
        /// JSON, one entry a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Put entries back
    Restore {
        /// The entries
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
    /// Remove what is in the trash, for good
    Empty {
        /// Only what has been there longer than this: 30d, 12h, 45m, 10s, 2w
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        /// Remove nothing: print what would be
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// A number of seconds from 0 up.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, such as 2 or 0.5".to_owned()),
    }
}
