"""The keystore of `deer security`: its files, who may read them, its signatures, and what a second run leaves alone."""

import shutil
import subprocess

import pytest

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.bringup import StackConfig
from deer_ros.cli.main import main
from deer_ros.security import enforcing
from deer_ros.security.enclaves import enclaves
from deer_ros.security.keystore import ENCLAVE_FILES, KeystoreSettings

pytest.importorskip("cryptography")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    folder = tmp_path_factory.mktemp("security") / "keys"
    assert main(["security", str(folder), "--bringup", "simulation", "--domain-id", "9", "--days", "30"]) == 0
    return folder


def openssl(*words, stdin=None):
    return subprocess.run(["openssl", *map(str, words)], input=stdin, capture_output=True, timeout=30, check=False)


def contents(folder):
    """Every file below the folder, links not followed, with its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}


def test_every_enclave_has_the_files_that_ros_reads(keystore):
    for name in (*(node.name for node in graph.BRINGUPS["simulation"].nodes), "operator", "recorder"):
        assert enforcing.arguments(keystore, name) == ["--enclave", f"/deer/{name}"]
        place = keystore / "enclaves" / "deer" / name
        assert all((place / file).read_bytes() for file in ENCLAVE_FILES)


def test_private_keys_are_their_owners_alone(keystore):
    keys = [path for path in contents(keystore) if b"PRIVATE KEY" in path.read_bytes()]
    assert len(keys) == 1 + len(enclaves("simulation"))
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert (keystore / "private").stat().st_mode & 0o777 == 0o700


@needs_openssl
def test_certificates_are_of_the_authority_and_of_the_name(keystore):
    place = keystore / "enclaves" / "deer" / "safety"
    assert openssl("verify", "-CAfile", place / "identity_ca.cert.pem", place / "cert.pem").returncode == 0
    told = openssl("x509", "-in", place / "cert.pem", "-noout", "-subject", "-text").stdout.decode()
    assert "CN = /deer/safety" in told
    assert "prime256v1" in told
    assert "CA:FALSE" in told


@needs_openssl
@pytest.mark.parametrize("name", ["permissions", "governance"])
def test_documents_are_signed_and_a_changed_one_is_noticed(keystore, name):
    place = keystore / "enclaves" / "deer" / "recorder"
    document, authority = (place / f"{name}.p7s").read_bytes(), place / "permissions_ca.cert.pem"
    verify = ("smime", "-verify", "-text", "-CAfile", authority)
    done = openssl(*verify, stdin=document)
    assert done.returncode == 0
    source = (keystore / "enclaves" / "governance.xml") if name == "governance" else (place / "permissions.xml")
    assert done.stdout.replace(b"\r\n", b"\n") == source.read_bytes()
    changed = document.replace(b"<id>9</id>", b"<id>8</id>")
    assert changed != document
    assert openssl(*verify, stdin=changed).returncode != 0


def test_an_existing_keystore_is_not_overwritten(keystore, capsys):
    before = contents(keystore)
    assert main(["security", str(keystore)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert contents(keystore) == before


def test_permissions_are_renewed_and_keys_are_kept(keystore, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(keystore, folder, symlinks=True)
    before = contents(folder)
    renew = ["security", str(folder), "--renew-permissions", "--bringup", "simulation", "--domain-id"]
    assert main([*renew, "10"]) == 0
    after = contents(folder)
    changed = {path.name for path, content in after.items() if before[path] != content}
    assert changed == {"permissions.xml", "permissions.p7s", "governance.xml", "governance.p7s"}
    assert b"<id>10</id>" in (folder / "enclaves" / "deer" / "policy" / "permissions.xml").read_bytes()


def test_an_enclave_that_is_new_gets_keys_with_the_next_permissions(keystore, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(keystore, folder, symlinks=True)
    shutil.rmtree(folder / "enclaves" / "deer" / "policy")
    with pytest.raises(ConfigError, match=r"policy lacks cert\.pem"):
        StackConfig(security=folder)
    assert main(["security", str(folder), "--renew-permissions", "--bringup", "simulation"]) == 0
    assert StackConfig(security=folder).enclave("policy") == ["--enclave", "/deer/policy"]


def test_permissions_are_not_made_without_the_authoritys_key(keystore, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(keystore, folder, symlinks=True)
    shutil.rmtree(folder / "private")
    assert main(["security", str(folder), "--renew-permissions"]) == 2
    assert "where the keystore's private keys are kept" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "message"), [((300, 1), "domain_id is 300"), ((0, 0), "days is 0")])
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        KeystoreSettings(*settings)


def test_a_stack_starts_its_processes_with_the_keystore(keystore):
    environment = StackConfig(security=keystore).environment({})
    assert environment["ROS_SECURITY_ENABLE"] == "true"
    assert environment["ROS_SECURITY_STRATEGY"] == "Enforce"
    assert environment["ROS_SECURITY_KEYSTORE"] == str(keystore)


def test_a_client_joins_as_the_operator_where_security_is_on(keystore):
    given = enforcing.environment(keystore)
    assert enforcing.client_arguments(given) == ["--ros-args", "--enclave", "/deer/operator"]
