"""The official Node client, npm's ``cloudconvert`` 3, works with the emulator.

Needs node, and the package where node finds it: run ``npm install cloudconvert@3`` in a folder, and put its
``node_modules`` into ``NODE_PATH``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskbridge.emulator import Emulator

VERSION = "process.stdout.write(require('cloudconvert/built/package.json').version)"

# The client knows only the vendor's hosts, so its calls are sent to the emulator.
SETUP = """
const fs = require('node:fs');
const CloudConvert = require('cloudconvert');
const {settings, jobs, folder} = JSON.parse(fs.readFileSync(0, 'utf8'));
const client = new CloudConvert(settings.api_key);
const send = client.callWithBase.bind(client);
client.callWithBase = (base, ...rest) => {
  const host = base.includes('sync.') ? settings.sync_url : settings.base_url;
  return send(base.replace(/^https:\\/\\/[^/]+\\/v2\\//, `${host}/`), ...rest);
};
const show = value => console.log(JSON.stringify(value));
const failure = async call => { try { await call(); } catch (error) { return error.cause.status; } };
"""


def missing() -> str:
    """Return why the client cannot run here; empty if it can."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed"
    found = subprocess.run([node, "-e", VERSION], capture_output=True, text=True, check=False, timeout=60)
    if found.returncode:
        return "node does not find the package cloudconvert; see the top of this file"
    return "" if found.stdout.startswith("3.") else f"node finds cloudconvert {found.stdout}, not 3"


REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("cloudconvert", speed=1000) as running:
        yield running


def run(emulator: Emulator, folder: Path, code: str) -> list[Any]:
    """Run a program with the client; return what it shows."""
    given = {"settings": emulator.settings(), "jobs": emulator.samples(), "folder": str(folder)}
    program = f"{SETUP}\n(async () => {{ {code} }})();"
    done = subprocess.run(
        ["node", "--unhandled-rejections=strict", "-e", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_file_is_uploaded_converted_and_exported(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "Übung 1.pdf").write_bytes(b"%PDF-1.4\r\n--boundary\r\n\x00\xff")
    job, exported, text = run(
        emulator,
        tmp_path,
        """
        let job = await client.jobs.create({tag: 'npm', tasks: {
          'in': {operation: 'import/upload'},
          'work': {operation: 'convert', input: 'in', output_format: 'txt'},
          'out': {operation: 'export/url', input: 'work'},
        }});
        const upload = job.tasks.find(task => task.name === 'in');
        await client.tasks.upload(upload, fs.createReadStream(`${folder}/Übung 1.pdf`));
        job = await client.jobs.wait(job.id);
        show(job);
        const files = client.jobs.getExportUrls(job);
        show(files);
        show(await (await fetch(files[0].url)).text());
        """,
    )
    assert (job["status"], job["tag"]) == ("finished", "npm")
    assert [file["filename"] for file in exported] == ["Übung 1.txt"]
    assert text == "Text of Übung 1.pdf\n"


def test_jobs_and_tasks_are_read_listed_canceled_and_deleted(emulator: Emulator, tmp_path: Path) -> None:
    shown = run(
        emulator,
        tmp_path,
        """
        const id = jobs['job'].replace('job/', '');
        show((await client.jobs.get(id)).id === id);
        show((await client.jobs.all({'filter[status]': 'finished', per_page: 1})).length);
        show((await client.tasks.all({'filter[job_id]': id})).length);
        show((await client.tasks.cancel(jobs['processing'])).code);
        show((await client.tasks.get(jobs['metadata'], {include: 'payload'})).payload !== undefined);
        await client.jobs.delete(id);
        show(await failure(() => client.jobs.get(id)));
        show(await failure(() => client.tasks.create('import/url', {})));
        show((await client.users.me()).username);
        """,
    )
    assert shown == [True, 1, 3, "CANCELLED", True, 404, 422, "emulator"]


def test_a_redirect_is_followed_without_the_key(emulator: Emulator, tmp_path: Path) -> None:
    run(emulator, tmp_path, "await client.jobs.get(jobs['job'].replace('job/', ''), {redirect: true});")
    assert [seen.status for seen in emulator.requests] == [302, 200]


def test_the_client_verifies_the_emulators_webhooks(emulator: Emulator, tmp_path: Path) -> None:
    vendor = emulator.vendors["cloudconvert"]
    secret = vendor.register_webhook("http://127.0.0.1:9/")
    run(emulator, tmp_path, "await client.jobs.create({tasks: {a: {operation: 'import/upload'}}});")
    while not emulator.deliveries:
        pass  # sent a moment later
    sent = emulator.deliveries[0]
    given = json.dumps([sent.body.decode(), sent.headers["CloudConvert-Signature"], secret])
    shown = run(emulator, tmp_path, f"const [a, b, c] = {given}; show(client.webhooks.verify(a, b, c));")
    assert shown == [True]
