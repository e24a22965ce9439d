"""`tradax serve` shows what is there, to this machine only, whatever lies in the directory."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from browser import CHROMIUM, Browser, violations, wait_for
from tradax import run_directory
from tradax.cli import main
from tradax.dashboard import open_server
from tradax.errors import TradaxError
from tradax.listing import Listing

EVIL = "<img src=x onerror=alert(1)>"
CONFIG = "format: 1\nalgorithm: ppo\nenv: trading\ndata: sp500\ntotal_timesteps: 1000\nseed: 7\n"
ROW = {"update": 1, "timesteps": 250, "return": 0.5, "steps_per_second": 1234.0}


def make_run(folder, *, rows=(ROW,), summary=None, config=CONFIG):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "report.html").write_text("<!doctype html><title>the report</title>")
    return folder


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    with open_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path="/", method="GET", **headers):
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    own = {"Host": f"127.0.0.1:{server.server_port}"}
    sent = own | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def listed(folder):
    snapshot = Listing(folder).snapshot()
    return {one.name: one for one in (*snapshot.runs, *snapshot.sweeps)}


def test_a_run_is_running_while_its_lock_is_held_then_stopped_or_finished(tmp_path):
    scored = ROW | {"timesteps": 500, "return": None, "validation_score": 0.25}
    run = make_run(tmp_path / "a", rows=[ROW, scored, ROW | {"timesteps": 750, "return": None}])
    with run_directory.locked(run):
        one = listed(tmp_path)["a"]
    assert (one.state, one.progress) == ("running", 0.75)
    assert one.cells == {
        "algorithm": "ppo",
        "market": "trading: sp500",
        "seed": "7",
        "steps": "750 of 1,000",
        "speed": "1,234",
        "return": "0.5",
        "validation": "0.25",
        "grade": "–",
    }
    assert listed(tmp_path)["a"].state == "stopped"
    (run / "summary.json").write_text(json.dumps({"verdict": {"grade": "weak"}}))
    one = listed(tmp_path)["a"]
    assert (one.state, one.cells["grade"]) == ("finished", "weak")
    os.utime(run / "summary.json", (1, 1))
    with run_directory.locked(run):  # it goes on for more steps
        assert listed(tmp_path)["a"].state == "running"


def test_looking_at_a_lock_does_not_keep_a_training_from_it(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "run.lock").touch()
    done = threading.Event()

    def look():
        while not done.is_set():
            run_directory.is_locked(run)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            with run_directory.locked(run):
                pass
    finally:
        done.set()
        thread.join()


def test_runs_of_several_symbols_and_sweeps_are_told_together(tmp_path):
    grades = {"A": {"verdict": {"grade": "none"}}, "B": {"verdict": {"grade": "none"}}}
    run = make_run(tmp_path / "several", rows=(), summary={"symbols": grades})
    for symbol, value in (("A", 1.0), ("B", 3.0)):
        (run / symbol).mkdir()
        (run / symbol / "metrics.jsonl").write_text(json.dumps(ROW | {"return": value}) + "\n")
        (run / symbol / "report.html").write_text("x")
    sweep = tmp_path / "sweep"
    (sweep / "waves").mkdir(parents=True)
    (sweep / "sweep.yaml").write_text("format: 1\nrun: {algorithm: td3, env: portfolio}\n")
    (sweep / "plan.json").write_text('{"format": 1, "waves": 4, "members": 8}')
    (sweep / "waves" / "0000.json").write_text('{"format": 1, "members": [{}, {}]}')
    make_run(sweep / "best" / "A", summary={"verdict": {"grade": "strong"}})
    make_run(sweep / "members" / "00001")
    found = listed(tmp_path)
    assert set(found) == {"several", "sweep", "sweep/best/A"}
    assert (found["several"].cells["return"], found["several"].cells["grade"]) == ("2", "2 none")
    assert [link.label for link in found["several"].links] == [
        *("report", "report A", "report B", "summary")
    ]
    assert found["sweep"].progress == 0.25
    assert found["sweep"].cells["waves"] == "1 of 4"
    assert found["sweep"].cells["algorithm"] == "td3"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", b"format: [1"),
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"[1, 2]"),
        ("config.yaml", b"algorithm: &a [*a, *a]\nenv: trading\n"),
        ("metrics.jsonl", b"\n"),
        ("metrics.jsonl", b'{"timesteps": "many"}\n'),
        ("metrics.jsonl", b"[" * 5000 + b"\n"),
        ("metrics.jsonl", b'{"timesteps": 1, "steps_per_second": 1' + b"0" * 999 + b"}\n"),
        ("summary.json", b'{"verdict": '),
        ("summary.json", b"[]"),
        ("summary.json", b'{"mean_return": 1' + b"0" * 999 + b"}"),
    ],
)
def test_damaged_files_are_said_and_break_nothing(tmp_path, file, content):
    make_run(tmp_path / "good", summary={"mean_return": 1.0})
    run = make_run(tmp_path / "bad", summary={"verdict": {"grade": "none"}})
    (run / file).write_bytes(content)
    found = listed(tmp_path)
    assert found["good"].note == ""
    assert file in found["bad"].note or found["bad"].state == "damaged"
    assert (found["bad"].state == "damaged") == (file == "config.yaml")


def test_a_half_written_row_is_not_there_yet(tmp_path):
    run = make_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"update": 2, "timest')
    assert listed(tmp_path)["a"].cells["steps"] == "250 of 1,000"
    assert listed(tmp_path)["a"].note == ""


def test_links_out_of_the_directory_are_not_followed(tmp_path, server):
    secret = make_run(tmp_path / "secret", summary={"mean_return": 1.0})
    root = server.listing.root
    (root / "link").symlink_to(secret)
    own = make_run(root / "own")
    (own / "report.html").symlink_to(secret / "report.html")
    (own / "summary.json").symlink_to(secret / "summary.json")
    snapshot = server.listing.snapshot()
    assert [one.name for one in snapshot.runs] == ["own"]
    assert snapshot.runs[0].links == []
    assert snapshot.runs[0].state == "stopped"
    # One that becomes a link after it was listed.
    server.listing._fresh_until = 0.0
    late = make_run(root / "late", summary={"mean_return": 1.0})
    href = next(o for o in server.listing.snapshot().runs if o.name == "late").links[0].href
    assert ask(server, href)[0] == 200
    server.listing._fresh_until = float("inf")
    late.rename(root / "moved")
    late.symlink_to(secret)
    assert ask(server, href)[0] == 404


def test_only_requests_under_its_own_names_are_answered(server):
    port = server.server_port
    assert server.server_address[0] == "127.0.0.1"
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert ask(server, Host=host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1:1", "localhost", "", None):
        for path in ("/", "/runs.json", "/dashboard.js"):
            assert ask(server, path, Host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_but_get_and_head_is_answered(server, method):
    status, headers, _ = ask(server, method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_no_path_leads_anywhere_but_to_listed_files(tmp_path, server):
    run = make_run(server.listing.root / "a", summary={"mean_return": 1.0})
    (tmp_path / "report.html").write_text("outside")
    (href, other) = (link.href for link in server.listing.snapshot().runs[0].links)
    assert ask(server, href)[2] == (run / "report.html").read_text()
    assert ask(server, other)[1]["Content-Type"] == "application/json; charset=utf-8"
    key = href.split("/")[2]
    for path in (
        "/a/report.html",
        "/file/../report.html",
        "/file/%2e%2e/report.html",
        "/file/../../../../etc/passwd",
        f"/file/{key}/config.yaml",
        f"/file/{key}/summary.json",
        f"/file/{key}/../report.html",
        f"/file/{'0' * 32}/report.html",
        f"/file/{key}/report.html?x",
        "//etc/passwd",
        "http://evil.example/",
        "/runs.json/",
    ):
        assert ask(server, path)[0] == 404, path


def test_strict_policies_on_every_answer_and_reports_in_a_sandbox(server):
    make_run(server.listing.root / "a", summary={"mean_return": 1.0})
    for path in ("/", "/runs.json", "/dashboard.css", "/dashboard.js", "/nothing"):
        headers = ask(server, path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Python" not in headers["Server"]
    policy = ask(server, server.listing.snapshot().runs[0].links[0].href)[1][
        "Content-Security-Policy"
    ]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # default-src 'none' holds


def test_hostile_names_are_escaped(server):
    root = os.fsencode(server.listing.root)
    make_run(server.listing.root / EVIL, config=CONFIG.replace("trading", f"'{EVIL}'"))
    os.makedirs(os.path.join(root, b"\xff\xfe"))
    with open(os.path.join(root, b"\xff\xfe", b"config.yaml"), "w") as file:
        file.write(CONFIG)
    status, _, page = ask(server)
    assert status == 200
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    runs = json.loads(ask(server, "/runs.json")[2])["runs"]
    assert {one["name"] for one in runs} == {EVIL, "��"}


def test_state_is_sent_only_where_it_changed_and_head_has_no_body(server):
    make_run(server.listing.root / "a")
    _, headers, body = ask(server, "/runs.json")
    assert json.loads(body)["told"] == "1 run, 0 sweeps, 0 of them running."
    assert ask(server, "/runs.json", If_None_Match=headers["ETag"])[0] == 304
    status, headers, body = ask(server, method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000


def test_files_are_read_again_only_when_they_changed(tmp_path, monkeypatch):
    from tradax import listing

    for number in range(3):
        make_run(tmp_path / str(number), summary={"mean_return": 1.0})
    read = []
    original = listing.yaml_of
    monkeypatch.setattr(listing, "yaml_of", lambda *given: read.append(given) or original(*given))
    shown = Listing(tmp_path)
    for _ in range(3):
        shown._fresh_until = 0.0
        shown.snapshot()
    assert len(read) == 3
    monkeypatch.setattr(listing, "MOST_SHOWN", 2)
    shown._fresh_until = 0.0
    snapshot = shown.snapshot()
    assert (len(snapshot.runs), snapshot.left_out) == (2, "1 older not shown")


def test_what_cannot_be_served_is_one_clear_error(tmp_path, server, capsys):
    assert main(["serve", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--port", "70000"]) == 2
    with pytest.raises(TradaxError, match=r"is in use; give another, such as --port \d+"):
        open_server(tmp_path, server.server_port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_quietly(tmp_path, number):
    # Ignored at first, as by a shell that starts it in the background.
    ignored = f"import signal; signal.signal({number:d}, signal.SIG_IGN)"
    program = f"{ignored}; import sys; from tradax.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "at http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.strip()) == (0, "")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the page with")
def test_the_page_follows_a_run_and_keeps_the_focus(tmp_path, server):
    root = server.listing.root
    run = make_run(root / "first", summary={"mean_return": 1.0})
    with Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.run("document.querySelector('#runs a').focus()")
        make_run(root / EVIL)
        (run / "metrics.jsonl").write_text(json.dumps(ROW | {"timesteps": 1000}) + "\n")
        rows = "[...document.querySelectorAll('#runs tbody tr')]"
        wanted = (
            f"{rows}.length === 2 && {rows}.some(r => r.textContent.includes('1,000 of 1,000'))"
        )
        wait_for(lambda: browser.run(wanted))
        assert browser.run("document.activeElement.textContent") == "report"
        assert violations(browser) == []
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert browser.run("document.getElementById('changes').textContent") == f"{EVIL}: stopped"
        browser.open(server.url[:-1] + server.listing.snapshot().runs[1].links[0].href)
        assert browser.run("document.title") == "the report"
    assert browser.complaints == []
    assert all(url.startswith(server.url) for url in browser.requests)
