import io

from cryobridge.cli.terminal import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def in_terminal(monkeypatch):
    """Be in a terminal; to be called in the test, as pytest has a stderr of its own for each of its phases."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return terminal


def test_workers_have_a_row_each_below_the_bar(monkeypatch):
    terminal = in_terminal(monkeypatch)
    with progress() as reporter:
        reporter.start("images", 400)
        for worker in ("node7/0", "node7/1", "node7/0"):
            reporter.done_by(worker, 100, 2.0)
            reporter.advance(100)
        reporter.now("stack 3 of 4")
    shown = terminal.getvalue()
    assert "300/400" in shown
    assert "stack 3 of 4" in shown
    for name, tasks in (("node7/0", "2 tasks"), ("node7/1", "1 task,")):
        assert any(name in line and tasks in line for line in shown.splitlines()), name


def test_rows_of_workers_go_with_the_work_that_they_did(monkeypatch):
    terminal = in_terminal(monkeypatch)
    with progress() as reporter:
        reporter.start("images", 100)
        reporter.done_by("node7/0", 100, 2.0)
        reporter.start("reading", None)
    assert "node7/0" not in terminal.getvalue().rpartition("reading")[2]
