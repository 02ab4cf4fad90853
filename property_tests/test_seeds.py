"""The file of seeds: what is kept is played again, in order, by its own harness only."""

from __future__ import annotations

import pytest
from seeds import FILE, fresh, keep, keeping, kept, lines


def test_what_is_kept_comes_back(tmp_path):
    """In the order in which it was kept, once, for its harness; a reason may be anything."""
    file = tmp_path / "seeds.txt"

    assert kept("one", file) == []
    assert [
        keep("one", 7, "it\nfailed # twice", file),
        keep("two", 1, file=file),
        keep("one", 3, file=file),
    ] == [True] * 3
    assert keep("one", 7, "again", file) is False

    assert (kept("one", file), kept("two", file), kept("on", file)) == ([7, 3], [1], [])
    assert file.read_text() == "one 7  # it failed # twice\ntwo 1\none 3\n"


def test_a_failure_is_kept_with_its_seed(tmp_path):
    """`keeping` names the seed in the failure, and keeps it; what goes well is not kept."""
    file = tmp_path / "seeds.txt"

    with keeping("one", 1, file):
        pass
    with pytest.raises(ZeroDivisionError) as failure, keeping("one", 2, file):
        raise ZeroDivisionError("by zero")

    assert failure.value.__notes__ == [
        "harness one, seed 2; it is kept in seeds.txt and played first from now on"
    ]
    assert file.read_text() == "one 2  # ZeroDivisionError: by zero\n"


def test_seeds_that_are_asked_for_come_first(tmp_path, monkeypatch):
    """ZART_SEED gives seeds for one session."""
    file = tmp_path / "seeds.txt"
    keep("one", 5, file=file)
    monkeypatch.setenv("ZART_SEED", "9, 5")

    assert kept("one", file) == [9, 5]


def test_fresh_seeds_are_printed(capsys):
    """A session can be repeated from what it printed."""
    found = fresh("one", 3)

    assert (
        capsys.readouterr().out
        == f"one: seeds {found[0]} to {found[2]}, after {len(kept('one'))} that are kept\n"
    )
    assert fresh("one", 3) != found


@pytest.mark.parametrize("line", ["one", "one x", "one 1 why", "One 1", "one -1"])
def test_a_line_that_is_none_is_an_error(tmp_path, line):
    """Nothing is skipped silently."""
    file = tmp_path / "seeds.txt"
    file.write_text(f"# fine\n\n{line}\n")

    with pytest.raises(ValueError, match=r"seeds\.txt:3: .* is not `harness seed"):
        kept("one", file)


def test_a_bad_seed_is_not_written(tmp_path):
    """What could not be read back is refused."""
    with pytest.raises(ValueError, match="no harness and seed"):
        keep("Not a name", 1, file=tmp_path / "seeds.txt")
    assert not (tmp_path / "seeds.txt").exists()


def test_the_file_itself_is_sound():
    """Every line of the project's own file reads."""
    assert len(set(lines(FILE))) == len(lines(FILE))
