//! The tools that everybody has work on the mount as on any file system, for root and for an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use common::{Cache, Mount, Options, User, ls, read};

/// A mounted cache of one entry, `e1`, and a directory outside of it.
struct Fixture {
    mount: Mount,
    cache: Cache,
    outside: tempfile::TempDir,
}

impl Fixture {
    /// Runs a script in the mount with `$OUT` as a place outside.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.mount
            .sh(&format!(
                "OUT='{}'; export HOME=$OUT; VIM=$(command -v vim || command -v vim.tiny)\n{script}",
                self.outside.path().display()
            ))
            .ok()
    }

    /// The names in a directory: `root` may not look into an ordinary user's mount.
    #[track_caller]
    fn ls(&self, path: &str) -> Vec<String> {
        self.sh(&format!("ls -A '{path}'")).lines().map(str::to_owned).collect()
    }

    /// The attributes of the only entry that has `copy` as a directory below `new/`.
    #[track_caller]
    fn attrs(&self, new: &str) -> serde_json::Map<String, serde_json::Value> {
        let id = self.sh(&format!("cat 'new/{new}/.attrs/_id'"));
        let mut object = self.cache.entry(id.trim_end());
        object.retain(|name, _| !name.starts_with('_'));
        object
    }
}

/// Runs a test as root (or whoever runs the tests), then as an ordinary user.
fn everyone(test: impl Fn(&Fixture)) {
    let user = User::ordinary();
    let users = if common::is_root() { vec![None, Some(&user)] } else { vec![None] };
    for user in users {
        eprintln!("as {}", if user.is_some() { "an ordinary user" } else { "the caller" });
        let cache = Cache::new();
        let outside = common::scratch();
        cache.add(
            "e1",
            1_700_000_000.25,
            r#""lr": 0.1, "model": "resnet18", "tags": ["a", "b"], "opt": {"name": "adam"}, "n": "1""#,
        );
        fs::create_dir(cache.join("e1/sub")).unwrap();
        fs::write(cache.join("e1/out.txt"), "first line\nneedle 1\n").unwrap();
        fs::write(cache.join("e1/sub/data"), vec![7; 70_000]).unwrap();
        if let Some(user) = user {
            user.own(outside.path());
            for path in ["", "e1", "e1/sub", "e1/out.txt", "e1/sub/data", "_entries", "_lock"] {
                user.own(&cache.join(path));
            }
        }
        let mount = Mount::new(cache.path(), &Options { user, ..Options::default() });
        let fixture = Fixture { mount, cache, outside };
        test(&fixture);
        fixture.mount.stop();
    }
}

fn expected() -> serde_json::Map<String, serde_json::Value> {
    let attrs = serde_json::json!({"lr": 0.1, "model": "resnet18", "tags": ["a", "b"], "opt": {"name": "adam"}, "n": "1"});
    attrs.as_object().unwrap().clone()
}

#[test]
fn cp_carries_attributes_out_and_in() {
    everyone(|f| {
        f.sh("cp -a entries/e1 $OUT/copy && diff -r entries/e1 $OUT/copy");
        let names = f.sh("getfattr -d $OUT/copy");
        assert!(names.contains("user.lr=\"0.1\"") && names.contains("user.opt.name=\"adam\""), "{names}");
        f.sh("cp -a $OUT/copy new/again && diff -r $OUT/copy new/again");
        assert_eq!(f.attrs("again"), expected());
        // From entry to entry, without the detour.
        f.sh("cp -a entries/e1 new/direct");
        assert_eq!(f.attrs("direct"), expected());
        f.sh("cp -r entries/e1 new/plain && diff -r entries/e1 new/plain");
        assert_eq!(f.attrs("plain"), serde_json::Map::new());
        assert_eq!(f.ls("by-attr/model/resnet18").len(), 3);
    });
}

#[test]
fn rsync_carries_attributes_out_and_in() {
    everyone(|f| {
        f.sh("rsync -aX entries/e1/ $OUT/copy/ && diff -r entries/e1 $OUT/copy");
        assert!(f.sh("getfattr -d $OUT/copy").contains("user.model=\"resnet18\""));
        f.sh("mkdir new/again && rsync -aX $OUT/copy/ new/again/ && diff -r $OUT/copy new/again");
        assert_eq!(f.attrs("again"), expected());
        assert_eq!(f.sh("rsync -aXi $OUT/copy/ new/again/"), "", "nothing is left to do");
        f.sh("rsync -a --copy-links by-attr/lr/0.1/ $OUT/set && diff -r entries/e1 $OUT/set/e1");
    });
}

#[test]
fn tar_carries_attributes_out_and_in() {
    everyone(|f| {
        f.sh("tar --xattrs -C entries -cf $OUT/t.tar e1 && tar --xattrs -xf $OUT/t.tar -C new");
        assert_eq!(f.attrs("e1"), expected());
        assert_ne!(f.sh("cat new/e1/.attrs/_id").trim(), "e1", "a fresh id");
        f.sh("diff -r entries/e1 new/e1");
        assert!(f.sh("tar -C by-attr/lr/0.1 -h -cf - . | tar -t").contains("./e1/out.txt\n"));
    });
}

#[test]
fn find_grep_du_and_tree_end() {
    everyone(|f| {
        let found = f.sh("find . ! -path './README' | wc -l");
        assert!(found.trim().parse::<usize>().unwrap() < 200, "{found}");
        assert_eq!(f.sh("find entries -type f | sort"), "entries/e1/out.txt\nentries/e1/sub/data\n");
        assert_eq!(f.sh("find by-attr/lr -type l"), "by-attr/lr/0.1/e1\n");
        assert_eq!(f.sh("find -L by-attr/lr -name out.txt"), "by-attr/lr/0.1/e1/out.txt\n");
        assert_eq!(f.sh("find entries -maxdepth 1 -newermt 2023-01-01 -name e1"), "entries/e1\n");
        assert_eq!(f.sh("grep -r needle entries"), "entries/e1/out.txt:needle 1\n");
        assert_eq!(f.sh("grep -rl needle by-attr/model/resnet18/*"), "by-attr/model/resnet18/e1/out.txt\n");
        assert_eq!(f.sh("grep -l adam entries/*/.attrs/opt.name"), "entries/e1/.attrs/opt.name\n");
        let du = f.sh("du -sb --apparent-size entries/e1/sub/data | cut -f1; du -a . | wc -l; du -s .");
        assert!(du.starts_with("70000\n"), "{du}");
        f.sh("ls -lR . > /dev/null; tree . > /dev/null; ls -la entries/e1 by-attr/lr/0.1 > /dev/null");
        f.sh("stat -f . > /dev/null; df . > /dev/null");
    });
}

/// By the view, or before that by its permission bits.
fn refused(complaint: &str) -> bool {
    complaint.contains("not permitted") || complaint.contains("Permission denied")
}

#[test]
fn rm_in_a_view_removes_nothing() {
    everyone(|f| {
        let before = f.cache.log();
        for view in
            ["by-attr/lr", "by-attr/tags", "by-attr/lr/0.1", "by-attr/lr/0.1/by-attr/model", "sort", "where"]
        {
            let complaint = f.mount.sh(&format!("rm -r {view}")).fails();
            assert!(refused(&complaint), "{view}: {complaint}");
            let complaint = f.mount.sh(&format!("rm -rf {view}")).fails();
            assert!(refused(&complaint), "{view}: {complaint}");
        }
        assert_eq!(f.cache.log(), before);
        // Only where a link is an element of a list does removing it mean something: that element.
        let complaint = f.mount.sh("rm -rf by-attr").fails();
        assert!(complaint.contains("not permitted"), "{complaint}");
        let mut entry = f.cache.entry("e1");
        assert_eq!(entry.remove("tags"), Some(serde_json::json!([])));
        entry.retain(|key, _| !key.starts_with('_'));
        let mut others = expected();
        others.remove("tags");
        assert_eq!(entry, others);
        assert_eq!(ls(f.cache.join("e1")), ["out.txt", "sub"]);
        assert_eq!(f.sh("cat by-attr/lr/0.1/e1/out.txt"), "first line\nneedle 1\n");
        f.sh("rm -r entries/e1");
        assert_eq!(f.ls("entries"), [""; 0]);
        assert_eq!(f.cache.entries().len(), 0);
    });
}

#[test]
fn sed_and_editors_change_attributes_and_contents() {
    everyone(|f| {
        f.sh("sed -i s/0.1/0.2/ entries/e1/.attrs/lr; sed -i s/needle/pin/ entries/e1/out.txt");
        assert_eq!(f.cache.entry("e1")["lr"].to_string(), "0.2");
        assert_eq!(read(f.cache.join("e1/out.txt")), "first line\npin 1\n");
        f.sh("sed -i s/1/2/ entries/e1/.attrs/n");
        assert_eq!(f.cache.entry("e1")["n"], "2", "a string in quotes stays a string");
        f.sh("printf '%s\\n' 's/pin/two/' w q | ed -s entries/e1/out.txt");
        f.sh("printf '%s\\n' 's/adam/sgd/' w q | ed -s entries/e1/.attrs/opt.name");
        assert_eq!(read(f.cache.join("e1/out.txt")), "first line\ntwo 1\n");
        assert_eq!(f.cache.entry("e1")["opt"]["name"], "sgd");
        f.sh("$VIM -es -u NONE -N -n '+%s/two/three/' '+wq' entries/e1/out.txt < /dev/null");
        f.sh("$VIM -es -u NONE -N -n '+%s/sgd/lion/' '+wq' entries/e1/.attrs/opt.name < /dev/null");
        assert_eq!(read(f.cache.join("e1/out.txt")), "first line\nthree 1\n");
        assert_eq!(f.cache.entry("e1")["opt"]["name"], "lion");
        assert_eq!(f.ls("entries/e1/.attrs"), ["lr", "model", "n", "opt.name", "tags"]);
        assert_eq!(f.ls("entries/e1"), ["out.txt", "sub"]);
    });
}

#[test]
fn git_commits_and_sqlite_stores() {
    everyone(|f| {
        let log = f.sh("cd entries/e1 && git init -q . && git config user.name n && git config user.email e@x \
             && git add -A && git commit -qm first && echo more >> out.txt && git commit -qam second \
             && git status --porcelain && git log --format=%s && git fsck --strict 2>&1 && git gc -q && git checkout -q HEAD~1 && tail -1 out.txt");
        assert!(log.starts_with("second\nfirst\n") && log.ends_with("needle 1\n"), "{log}");
        f.sh("git clone -q entries/e1 $OUT/clone");
        for mode in ["delete", "wal"] {
            let sum = f.sh(&format!(
                "sqlite3 entries/e1/{mode}.db \"pragma journal_mode={mode}; create table t(x); \
                 with recursive n(x) as (select 1 union all select x+1 from n where x < 1000) insert into t select x from n; \
                 select sum(x) from t;\"; sqlite3 entries/e1/{mode}.db 'pragma integrity_check; select count(*) from t'"
            ));
            assert_eq!(sum, format!("{mode}\n500500\nok\n1000\n"));
        }
    });
}

#[test]
fn python_walks_copies_and_moves() {
    everyone(|f| {
        let out = f.sh(r#"
/usr/bin/env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 - "$PWD" "$OUT" <<'PYTHON'
import os, pathlib, shutil, sys, tempfile
mnt, out = map(pathlib.Path, sys.argv[1:])
entry = mnt / "entries" / "e1"
assert sorted(p.name for p in entry.iterdir()) == ["out.txt", "sub"]
assert [p.name for p in (mnt / "by-attr" / "lr").iterdir()] == ["0.1"]
assert (mnt / "by-attr/lr/0.1/e1").resolve() == entry.resolve()
assert (entry / ".attrs" / "model").read_text() == "resnet18\n"
(entry / ".attrs" / "loss").write_text("0.25")
assert (mnt / "by-attr/loss/0.25/e1/out.txt").exists()
assert len([f for _, _, files in os.walk(mnt / "entries") for f in files]) == 2
assert len(list(mnt.glob("by-attr/*/*/e1"))) == 8, list(mnt.glob("by-attr/*/*/e1"))
shutil.copytree(entry, out / "tree")
shutil.copytree(out / "tree", mnt / "new" / "tree")
assert (mnt / "new/tree/sub/data").stat().st_size == 70000
shutil.move(entry / "out.txt", mnt / "new/tree/moved.txt")
assert (mnt / "new/tree/moved.txt").read_text().startswith("first")
shutil.rmtree(mnt / "new/tree/sub")
made = pathlib.Path(tempfile.mkdtemp(dir=mnt / "new"))
(made / "f").write_bytes(b"x" * 100000)
assert (made / "f").stat().st_size == 100000
assert shutil.disk_usage(mnt).total > 0
with os.scandir(mnt / "entries") as it:
    assert all(e.is_dir() for e in it)
os.replace(made / "f", made / "g")
assert os.getxattr(entry, "user.loss") == b"0.25"
print(len(os.listdir(mnt / "entries")))
PYTHON
"#);
        assert_eq!(out, "3\n");
    });
}

#[test]
fn jq_and_mktemp_and_shell_loops() {
    everyone(|f| {
        assert_eq!(f.sh("jq -r .opt.name entries/*/.attrs.json"), "adam\n");
        assert_eq!(
            f.sh("jq -c .tags entries/e1/.attrs.json; jq . entries/e1/.attrs/tags | wc -l"),
            "[\"a\",\"b\"]\n4\n"
        );
        f.sh("jq -c '.lr = 0.3 | .new = true' entries/e1/.attrs.json > $OUT/j && cat $OUT/j > entries/e1/.attrs.json");
        assert_eq!(f.cache.entry("e1")["lr"].to_string(), "0.3");
        assert_eq!(f.cache.entry("e1")["new"], true);
        f.sh("d=$(mktemp -d new/XXXXXXXX) && echo 5 > $d/.attrs/n && echo hi > $d/f && test -d entries/$(cat $d/.attrs/_id)");
        let text = f.sh("for e in by-attr/n/5/*; do cat $e/f $e/.attrs/n; done");
        assert_eq!(text, "hi\n5\n");
        f.sh("cat README > /dev/null; head -c 10 README > /dev/null; wc README > /dev/null; test -s README");
        f.sh("dd if=/dev/zero of=entries/e1/zeros bs=64k count=4 conv=fsync 2> /dev/null; cmp -n 262144 entries/e1/zeros /dev/zero");
        f.sh("cp --sparse=always --reflink=auto entries/e1/zeros entries/e1/sparse; cmp entries/e1/zeros entries/e1/sparse");
        f.sh("split -n 3 entries/e1/sub/data entries/e1/part; cat entries/e1/part* | cmp - entries/e1/sub/data; rm entries/e1/part*");
        f.sh("(flock -n 9 && ! flock -n entries/e1/lock true) 9> entries/e1/lock");
    });
}

#[test]
fn a_copy_of_the_whole_mount_ends_and_is_the_cache() {
    everyone(|f| {
        f.sh("rsync -a --exclude /README ./ $OUT/all/ && diff -r entries $OUT/all/entries");
        assert_eq!(
            common::target(f.outside.path().join("all/by-attr/lr/0.1/e1")),
            Path::new("../../../entries/e1")
        );
        f.sh("cp -a by-attr $OUT/by-attr && tar -cf $OUT/all.tar .");
        // The copy has the modes of the views: an ordinary user could not remove it.
        f.sh("chmod -R u+w $OUT");
    });
}

#[test]
fn make_builds_in_parallel() {
    everyone(|f| {
        f.sh(r#"
mkdir entries/e1/build && cd entries/e1/build
cat > Makefile <<'MAKE'
N := $(shell seq 1 60)
all: sum
%.c: ; echo "$*" > $@
%.o: %.c ; sleep 0.01; cat $< > $@.tmp && mv $@.tmp $@
sum: $(N:=.o) ; cat $^ | paste -sd+ | bc > $@
MAKE
export MAKEFLAGS=-r
make -s -j4 && test $(cat sum) = 1830
make -s -j4 | grep -q . && exit 1
touch 7.c && make -q && exit 1
make -s -j4 && make -q
"#);
    });
}

#[test]
fn rsync_and_tar_keep_a_tree_as_it_is() {
    everyone(|f| {
        f.sh(r#"
mkdir -p $OUT/src/deep/er && cd $OUT/src
for n in $(seq 1 200); do echo $n > deep/file-$n; done
ln -s deep/file-1 link; ln deep/file-2 hard; mkfifo pipe; truncate -s 10M sparse; chmod 640 deep/file-3
touch -d '1969-07-20 20:17:40.5 UTC' deep/file-4; touch -h -d '2001-01-01' link
cd - > /dev/null
rsync -aH $OUT/src/ entries/e1/tree/
test -z "$(rsync -aHin --checksum $OUT/src/ entries/e1/tree/)"
test $(stat -c %h entries/e1/tree/hard) = 2
rm $OUT/src/deep/file-1??; echo changed > $OUT/src/deep/file-5
rsync -aH --delete $OUT/src/ entries/e1/tree/
test -z "$(rsync -aHin --checksum --delete $OUT/src/ entries/e1/tree/)"
test $(ls entries/e1/tree/deep | wc -l) = 101
tar -C entries/e1 -cSf entries/e1/t.tar tree && mkdir entries/e1/untar && tar -C entries/e1/untar -xSf entries/e1/t.tar
test -z "$(rsync -aHin --checksum --delete entries/e1/tree/ entries/e1/untar/tree/)"
tar -C entries/e1 -df entries/e1/t.tar
"#);
    });
}

#[test]
fn holes_are_kept_by_cp() {
    everyone(|f| {
        f.sh(r"
cd entries/e1
truncate -s 200M sparse; printf x | dd of=sparse bs=1 seek=100M conv=notrunc status=none
cp --sparse=auto sparse auto; cp --sparse=always sparse always; cp --reflink=auto sparse reflink
cp --sparse=never -- sub/data full; cp sparse $OUT/outside
for copy in auto always reflink $OUT/outside; do cmp sparse $copy; test $(du -k $copy | cut -f1) -lt 1000; done
cmp sub/data full
");
    });
}

#[test]
fn git_clones_into_an_entry() {
    everyone(|f| {
        f.sh(r#"
git init -q -b main $OUT/origin; cd $OUT/origin; git config user.name n; git config user.email e@x
for n in $(seq 1 30); do echo $n > file-$n; git add -A; git commit -qm "commit $n"; done
cd - > /dev/null
git clone -q --no-local $OUT/origin entries/e1/clone; cd entries/e1/clone; git config user.name n; git config user.email e@x
test $(git rev-list --count HEAD) = 30
git checkout -qb topic HEAD~5; echo topic > topic; git add -A; git commit -qm topic; git merge -q -m merge main
git gc -q --aggressive; git fsck --strict --no-dangling 2>&1; git repack -adq; git worktree add -q ../worktree main
test -z "$(git status --porcelain)"; test $(git rev-list --count HEAD) = 32
git push -q origin topic; cd $OUT/origin; git fsck --strict --no-dangling
"#);
    });
}

#[test]
fn four_processes_write_one_sqlite_database() {
    everyone(|f| {
        for mode in ["delete", "wal"] {
            let out = f.sh(&format!(
                r#"
/usr/bin/env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 - entries/e1/{mode}.db {mode} <<'PYTHON'
import multiprocessing, sqlite3, sys
path, mode = sys.argv[1:]

def connect():
    return sqlite3.connect(path, timeout=60, isolation_level=None)

def write(who):
    base = connect()
    for n in range(50):
        base.execute("begin immediate")
        count = base.execute("select count(*) from t").fetchone()[0]
        base.execute("insert into t values (?, ?, ?)", (count, who, n))
        base.execute("commit")

base = connect()
assert base.execute("pragma journal_mode=" + mode).fetchone()[0] == mode
base.execute("create table t(n integer primary key, who, what)")
workers = [multiprocessing.Process(target=write, args=(who,)) for who in range(4)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert all(worker.exitcode == 0 for worker in workers)
assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
assert base.execute("select count(*), max(n), count(distinct who) from t").fetchone() == (200, 199, 4)
print("fine")
PYTHON
"#
            ));
            assert_eq!(out, "fine\n");
        }
    });
}

#[test]
fn access_control_lists_are_those_of_the_backing_directory() {
    everyone(|f| {
        let path = f.cache.join("e1");
        let real = path.display();
        f.sh(&format!(
            r"
cd entries/e1
setfacl -m u:daemon:r--,g:daemon:rw-,m::rw- out.txt
diff <(getfacl -c out.txt) <(getfacl -cp {real}/out.txt)
getfacl -c out.txt | grep -q '^user:daemon:r--'
ls -l out.txt | grep -q '+'
test $(stat -c %a out.txt) = $(stat -c %a {real}/out.txt)
mkdir inherit; setfacl -d -m u:daemon:rwx,g::r-x,o::--- inherit
(umask 077; echo x > inherit/f; mkdir inherit/d)
diff <(getfacl -c inherit/f inherit/d) <(cd {real}; getfacl -c inherit/f inherit/d)
getfacl -c inherit/f | grep -q '^user:daemon:rwx'
getfacl -c inherit/d | grep -q '^default:user:daemon:rwx'
cp -a inherit $OUT/acl; cp -a $OUT/acl back; diff <(getfacl -c back/f) <(getfacl -c inherit/f)
setfacl -b out.txt; getfacl -c out.txt | grep -q daemon && exit 1
chmod 600 inherit/f; getfacl -c inherit/f | grep -q '^mask::---'
"
        ));
    });
}
