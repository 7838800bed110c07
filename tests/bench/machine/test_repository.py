"""Real repositories in the states in which people have them: the right commit or none, and one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.machine import environment, repository

if not shutil.which("git"):
    pytest.skip("no git", allow_module_level=True)

WHO = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "protocol.file.allow=always"]


def git(folder: Path, *words: str) -> str:
    """git as a user has it, with the variables that are set now."""
    done = subprocess.run(["git", *WHO, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def add(folder: Path, name: str) -> str:
    """Commit a file of this name and content, under a tag of this name; the hash."""
    (folder / name).write_text(name)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message", name)
    git(folder, "tag", name)
    return git(folder, "rev-parse", "HEAD")


def new(folder: Path) -> Path:
    """A repository with the commits `one` and `two`."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    add(folder, "one")
    add(folder, "two")
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new(tmp_path_factory.mktemp("template") / "ours")


@pytest.fixture
def ours(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another repository, with other commits."""
    folder = new(tmp_path / "other")
    add(folder, "three")
    return folder


def sentence(*asked: Path | str) -> str:
    """The error of resolve(repository, ref): one line."""
    folder, ref = asked
    with pytest.raises(UsageError) as error:
        repository.resolve(Path(folder), str(ref))
    assert "\n" not in str(error.value)
    return str(error.value)


# The commit


def test_a_clean_checkout_has_its_commit(ours: Path) -> None:
    assert repository.commit(ours) == (git(ours, "rev-parse", "HEAD"), True)


def test_a_detached_head_is_a_commit(ours: Path) -> None:
    git(ours, "checkout", "--quiet", "one")
    assert repository.commit(ours) == (git(ours, "rev-parse", "one"), True)
    assert repository.resolve(ours, "HEAD") == git(ours, "rev-parse", "one")


@pytest.mark.parametrize("name", ["one", "new"])
def test_what_is_not_committed_is_not_clean(name: str, ours: Path) -> None:
    git(ours, "config", "status.showUntrackedFiles", "no")
    (ours / name).write_text("changed")
    assert repository.commit(ours) == (git(ours, "rev-parse", "HEAD"), False)
    assert repository.is_clean(ours, untracked=False) == (name == "new")


def test_a_worktree_has_its_own_commit(ours: Path, tmp_path: Path) -> None:
    git(ours, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"), "one")
    assert repository.commit(tmp_path / "tree") == (git(ours, "rev-parse", "one"), True)


def test_a_link_to_a_checkout_is_that_checkout(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ours)
    assert repository.commit(tmp_path / "link")[0] == git(ours, "rev-parse", "HEAD")


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    folder = new(tmp_path / os.fsdecode(b"\xff \n'"))
    assert repository.commit(folder) == (git(folder, "rev-parse", "HEAD"), True)


def test_an_archive_unpacked_in_another_repository_has_no_commit(other: Path) -> None:
    inside = other / "ours"
    inside.mkdir()
    (inside / "file").touch()
    git(other, "add", ".")
    git(other, "commit", "--quiet", "--message", "vendored")
    assert git(inside, "rev-parse", "HEAD"), "what a plain git takes for its commit"
    assert repository.commit(inside) == (None, None)
    with pytest.raises(UsageError, match=f"{inside} is no git checkout, but a folder of the one in {other}; get it"):
        repository.require_top_level(inside)
    assert repository.top_level(inside) == other


def test_a_folder_is_part_of_a_checkout_if_its_commit_has_it(other: Path) -> None:
    inside = other / "unpacked"
    inside.mkdir()
    (inside / "file").touch()
    with pytest.raises(UsageError, match=f"{inside} is no part of the commit in {other}; commit it, or get it with"):
        repository.require_tracked(inside)
    git(other, "add", ".")
    git(other, "commit", "--quiet", "--message", "vendored")
    repository.require_tracked(inside)
    repository.require_tracked(other)


def test_a_copy_that_git_takes_for_its_original_has_no_commit(ours: Path, other: Path) -> None:
    git(ours, "config", "core.worktree", str(other))
    assert repository.commit(ours) == (None, None)


def test_a_checkout_inside_another_repository_has_its_own_commit(other: Path) -> None:
    inside = new(other / "ours")
    assert repository.commit(inside) == (git(inside, "rev-parse", "HEAD"), True)


def test_a_hook_of_another_repository_changes_nothing(
    ours: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What git sets in a pre-commit hook, and more."""
    (ours / "one").write_text("changed")
    real, theirs = git(ours, "rev-parse", "HEAD"), git(other, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "none"))
    assert repository.commit(ours) == (real, False)
    assert repository.commit(tmp_path) == (None, None)
    monkeypatch.delenv("GIT_OBJECT_DIRECTORY")
    assert git(ours, "rev-parse", "HEAD") == theirs, "what a plain git takes for its commit"


def test_without_a_commit_or_a_repository_there_is_none(tmp_path: Path) -> None:
    assert repository.commit(tmp_path) == (None, None)
    assert repository.commit(tmp_path / "nowhere") == (None, None)
    git(tmp_path, "init", "--quiet")
    assert repository.commit(tmp_path) == (None, None)
    assert (
        sentence(tmp_path, "HEAD") == f"no commit 'HEAD' in {tmp_path}, which has no commit yet; run git commit first"
    )


def test_the_row_has_the_commit_of_this_checkout(ours: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CHECKOUT", ours)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    environment.commit.cache_clear()
    try:
        row = environment.machine()["commit"]
    finally:
        environment.commit.cache_clear()
    monkeypatch.delenv("GIT_DIR")
    assert row == git(ours, "rev-parse", "HEAD")[:12]


def test_the_user_may_commit_meanwhile(ours: Path) -> None:
    """A status that refreshed the index would take its lock."""
    before = (ours / ".git" / "index").read_bytes()
    os.utime(ours / "one", (1, 1))
    assert repository.is_clean(ours)
    assert (ours / ".git" / "index").read_bytes() == before


# What git refuses


def test_without_git_there_is_no_commit(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for _ in range(2):
        assert repository.commit(ours) == (None, None)
        assert sentence(ours, "one") == "there is no git on PATH; install git, or add its folder to PATH"
        repository.points_at_repository.cache_clear()


def test_a_git_that_cannot_be_started_is_named(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("no program")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert repository.commit(ours) == (None, None)
    assert sentence(ours, "one").startswith("git cannot be started: [Errno 8]")


def refuses(folder: Path) -> None:
    """It says whose the repository is and how to allow it."""
    assert repository.commit(folder) == (None, None)
    said = f"git refuses {folder}, because another user owns it; if you trust it, run: "
    assert sentence(folder, "one") == f"{said}git config --global --add safe.directory {folder}"


def allow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As runners allow a checkout."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(folder))


def test_another_users_checkout_is_refused_until_it_is_allowed(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = git(ours, "rev-parse", "one")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refuses(ours)
    allow(ours, monkeypatch)
    assert repository.resolve(ours, "one") == sha
    assert repository.commit(ours)[1] is True


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_checkout_that_belongs_to_another_user_can_be_gated(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root in a container, of a checkout that was mounted."""
    sha = git(ours, "rev-parse", "one")
    for path in (ours, *ours.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    refuses(ours)
    allow(ours, monkeypatch)
    with repository.worktree(ours, sha, tmp_path / "tree") as tree:
        assert repository.commit(tree) == (sha, True)


def test_a_configuration_that_git_cannot_read_is_said(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "many")
    repository.points_at_repository.cache_clear()
    assert repository.commit(ours) == (None, None)
    assert "bogus count in GIT_CONFIG_COUNT" in sentence(ours, "one")


def test_other_configuration_of_git_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("GIT_SSL_CAINFO", "GIT_SSH_COMMAND", "GIT_CEILING_DIRECTORIES", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_COUNT")
    for name in (*names, "GIT_DIR", "GIT_COMMON_DIR", "GIT_SHALLOW_FILE"):
        monkeypatch.setenv(name, "0")
    kept = {name for name in repository.without_repository() if name.startswith("GIT_")}
    assert kept >= set(names)
    assert not kept & {"GIT_DIR", "GIT_COMMON_DIR", "GIT_SHALLOW_FILE"}


# Another commit


def test_what_is_no_commit_is_named(ours: Path, tmp_path: Path) -> None:
    for ref in ("nowhere", "", "--help", "a" * 40, "one..two", "HEAD:one"):
        assert sentence(ours, ref) == f"no commit {ref!r} in {ours}; give a branch, a tag or a hash"
    said = f"{tmp_path} is in no git repository; run this in a checkout made with git clone"
    assert sentence(tmp_path, "one") == said


@pytest.mark.parametrize("ref", ["one", "HEAD~1", "a" * 40])
def test_a_shallow_clone_is_said_to_be_one(ref: str, ours: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{ours}", "clone")
    said = sentence(tmp_path / "clone", ref)
    assert f"no commit {ref!r} in {tmp_path / 'clone'}, which is a shallow clone; run git fetch --unshallow" in said
    assert "fetch-depth: 0" in said
    assert repository.commit(tmp_path / "clone") == (git(ours, "rev-parse", "HEAD"), True)
    git(tmp_path / "clone", "fetch", "--quiet", "--unshallow", "--tags")
    assert repository.resolve(tmp_path / "clone", "one") == git(ours, "rev-parse", "one")


def test_a_branch_that_only_the_remote_has_is_named(ours: Path, tmp_path: Path) -> None:
    """As in CI, which checks out a commit without a branch."""
    git(ours, "branch", "feature")
    git(tmp_path, "clone", "--quiet", str(ours), "clone")
    assert sentence(tmp_path / "clone", "feature").endswith("; there is 'origin/feature'")


# Worktrees


def listed(folder: Path) -> int:
    return git(folder, "worktree", "list").count("\n") + 1


def test_a_worktree_is_removed_with_what_was_left_in_it(ours: Path, tmp_path: Path) -> None:
    sha = git(ours, "rev-parse", "one")

    def use() -> None:
        with repository.worktree(ours, sha, tmp_path / "tree") as tree:
            assert sorted(path.name for path in tree.iterdir()) == [".git", "one"]
            (tree / "one").write_text("changed")
            (tree / "left").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        use()
    assert not (tmp_path / "tree").exists()
    assert listed(ours) == 1


def test_a_folder_that_is_there_is_left_as_it_is(ours: Path, tmp_path: Path) -> None:
    """Even if git knows it as a worktree, which it would remove."""
    mine = tmp_path / "mine"
    git(ours, "worktree", "add", "--quiet", "--detach", str(mine), "one")
    with pytest.raises(UsageError, match=f"{mine} is there already"), repository.worktree(ours, "two", mine):
        pytest.fail("there is no worktree")
    assert (mine / "one").exists()
    assert listed(ours) == 2


def test_a_worktree_that_git_cannot_make_is_one_sentence(ours: Path, tmp_path: Path) -> None:
    said = f"^git worktree add .* in {ours} failed: .*nowhere.*$"
    with pytest.raises(UsageError, match=said), repository.worktree(ours, "nowhere", tmp_path / "tree"):
        pytest.fail("there is no worktree")
    assert not (tmp_path / "tree").exists()
    assert listed(ours) == 1


@pytest.fixture(scope="module")
def nested_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has the submodule `a dir/middle`, which has `inner`; HEAD has newer ones than the tag `first`."""
    folder = tmp_path_factory.mktemp("nested")
    inner, middle, outer = (new(folder / name) for name in ("inner", "middle", "source"))
    git(middle, "submodule", "--quiet", "add", str(inner), "inner")
    git(middle, "commit", "--quiet", "--message", "with inner")
    git(outer, "submodule", "--quiet", "add", str(middle), "a dir/middle")
    git(outer, "commit", "--quiet", "--message", "with middle")
    git(outer, "tag", "first")
    add(inner, "later")
    git(middle / "inner", "pull", "--quiet", "origin", "main")
    git(middle, "commit", "--quiet", "--all", "--message", "later inner")
    git(outer / "a dir/middle", "pull", "--quiet", "--no-recurse-submodules", "origin", "main")
    git(outer, "commit", "--quiet", "--all", "--message", "later middle")
    git(folder, "clone", "--quiet", "--recurse-submodules", str(outer), "outer")
    return folder / "outer"


@pytest.fixture
def nested(nested_template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(nested_template, tmp_path / "outer")


def test_submodules_are_those_of_the_commit(nested: Path, tmp_path: Path) -> None:
    middle = nested / "a dir" / "middle"
    config = (nested / ".git" / "config").read_bytes()
    assert (middle / "inner" / "later").exists()
    with repository.worktree(nested, git(nested, "rev-parse", "first"), tmp_path / "tree") as tree:
        inside = tree / "a dir" / "middle"
        assert (inside / "two").exists()
        assert (inside / "inner" / "two").exists()
        assert not (inside / "inner" / "later").exists()
        assert repository.commit(tree) == (git(nested, "rev-parse", "first"), True)
        (inside / "inner" / "two").write_text("changed")
        assert repository.commit(tree)[1] is False
    assert not (tmp_path / "tree").exists()
    assert [listed(folder) for folder in (nested, middle, middle / "inner")] == [1, 1, 1]
    assert (nested / ".git" / "config").read_bytes() == config
    assert repository.commit(nested) == (git(nested, "rev-parse", "HEAD"), True)


def test_a_submodule_is_a_checkout_of_its_own(nested: Path) -> None:
    middle = nested / "a dir" / "middle"
    assert repository.commit(middle) == (git(middle, "rev-parse", "HEAD"), True)


def test_a_submodule_that_is_not_checked_out_stays_empty_and_is_named(
    nested: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    git(nested, "submodule", "--quiet", "deinit", "--all", "--force")
    with repository.worktree(nested, "first", tmp_path / "tree") as tree:
        assert list((tree / "a dir" / "middle").iterdir()) == []
    said = f"submodule a dir/middle is left empty, because it is not checked out in {nested}\n"
    assert capfd.readouterr().err == said


def test_a_submodule_without_the_commit_is_named(nested: Path, tmp_path: Path) -> None:
    middle = nested / "a dir" / "middle"
    add(middle, "unknown")
    git(nested, "commit", "--quiet", "--all", "--message", "unknown")
    git(middle, "tag", "--delete", "unknown")
    git(middle, "checkout", "--quiet", "one")
    git(middle, "reflog", "expire", "--expire=now", "--all")
    git(middle, "gc", "--quiet", "--prune=now")
    with (
        pytest.raises(UsageError, match=f"{middle} lacks the commit .* needs; run: git -C {middle} fetch"),
        repository.worktree(nested, git(nested, "rev-parse", "HEAD"), tmp_path / "tree"),
    ):
        pytest.fail("there is no worktree")
    assert not (tmp_path / "tree").exists()
    assert [listed(folder) for folder in (nested, middle)] == [1, 1]


def test_a_name_of_a_branch_and_of_a_tag_means_none_of_them(ours: Path) -> None:
    git(ours, "branch", "v1")
    git(ours, "tag", "v1")
    assert repository.resolve(ours, "v1") == repository.resolve(ours, "HEAD")  # one commit by both names
    later = add(ours, "later")
    git(ours, "tag", "--force", "v1")
    with pytest.raises(UsageError, match=r"'v1' in .* is a branch and something else; give heads/v1 or tags/v1"):
        repository.resolve(ours, "v1")
    assert repository.resolve(ours, "tags/v1") == later != repository.resolve(ours, "heads/v1")
