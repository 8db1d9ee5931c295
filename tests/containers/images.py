"""Base images without a registry: everything in them is from Debian's packages and from this machine's Rust.

They take the place of the Dockerfiles' build arguments (BUILD_IMAGE, RUN_IMAGE, PYTHON_IMAGE), and hold what builds need
beforehand, the crates and the wheels, so that the builds themselves need no network. They are kept for the next run,
under a tag of what they were made from.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import engine
from support import ROOT, expect, must

SUITE = "bookworm"
# What the containers of these tests run besides scorefront, and what Rust needs to link.
PACKAGES = ["ca-certificates", "gcc", "haproxy", "libc6-dev", "openssl", "python3", "python3-hpack", "python3-venv"]
SYSTEMD_PACKAGES = ["adduser", "systemd-sysv"]
MIRROR = "http://deb.debian.org/debian"
MODEL = ROOT / "deploy/compose/model"
STAGE = "scorefront-test/stage:latest"


def tag(name, *made_from):
    digest = hashlib.sha256("\0".join(map(str, made_from)).encode()).hexdigest()[:12]
    return f"scorefront-test/{name}:{digest}"


def import_tree(image, *tar_words, settings=()):
    """An image of what tar writes with these words."""
    changes = [word for setting in settings for word in ("--change", setting)]
    tar = subprocess.Popen(["tar", "--create", "--numeric-owner", *map(str, tar_words)], stdout=subprocess.PIPE)
    done = subprocess.run(["docker", "import", *changes, "-", image], stdin=tar.stdout, capture_output=True, text=True,
                          timeout=900, check=False)
    tar.stdout.close()
    expect(tar.wait() == 0 and done.returncode == 0, f"{image} cannot be imported: {done.stderr}")
    # Only the newest of each is kept for the next run.
    name = image.split(":")[0]
    for other in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).split():
        if other != image:
            engine.run("image", "rm", other)
    return image


class Bases:
    """The base images, made when they are asked for."""

    def __init__(self, directory):
        self.directory = directory

    def root(self, packages=PACKAGES):
        """Debian's files, in a directory that is kept for the next run."""
        folder = self.directory / f"{SUITE}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            must(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, folder / "root",
                  MIRROR], timeout=900)
            (folder / "made").touch()
        return folder / "root"

    def debian(self):
        """Debian with what the other containers run."""
        image = tag("debian", SUITE, PACKAGES)
        if not engine.has_image(image):
            import_tree(image, "--directory", self.root(), "--exclude=./var/cache/apt/archives/*.deb", ".")
        return image

    def systemd(self):
        """Debian as it runs on a machine, for the package."""
        image = tag("systemd", SUITE, SYSTEMD_PACKAGES)
        if not engine.has_image(image):
            import_tree(image, "--directory", self.root(SYSTEMD_PACKAGES), "--exclude=./var/cache/apt/archives/*.deb", ".")
        return image

    def run_image(self):
        """As distroless images are: the C library, a user who is nobody, and no program at all."""
        image = tag("run", SUITE, PACKAGES)
        if engine.has_image(image):
            return image
        archives = self.root() / "var/cache/apt/archives"
        with tempfile.TemporaryDirectory(dir=self.directory) as tree:
            for package in ("base-files", "libc6", "libgcc-s1"):
                [archive] = archives.glob(f"{package}_*.deb")
                must(["dpkg-deb", "--extract", archive, tree])
            etc = Path(tree) / "etc"
            (etc / "passwd").write_text("root:x:0:0:root:/root:/sbin/nologin\n"
                                        "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
            (etc / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
            (etc / "nsswitch.conf").write_text("hosts: files dns\n")
            for program in Path(tree).glob("sbin/*"):
                program.unlink()
            shutil.rmtree(Path(tree) / "usr/share", ignore_errors=True)
            return import_tree(image, "--directory", tree, ".")

    def build_image(self):
        """Debian with this machine's Rust and every crate of the lock file."""
        sysroot = Path(must(["rustc", "--print", "sysroot"]).strip()).resolve()
        version = must(["rustc", "--version", "--verbose"])
        image = tag("build", SUITE, PACKAGES, version, (ROOT / "Cargo.lock").read_text())
        if engine.has_image(image):
            return image
        must(["cargo", "fetch", "--locked", "--manifest-path", ROOT / "Cargo.toml"], timeout=600)
        cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")).resolve()
        kept = [f"registry/{name}" for name in ("index", "cache")]
        kept += [name for name in ("config.toml", "config") if (cargo / name).exists()]
        return import_tree(
            image, "--exclude=./var/cache/apt/archives/*.deb", f"--exclude={sysroot.name}/share",
            f"--transform=s,^{sysroot.name},usr/local/rust,", "--transform=s,^registry,usr/local/cargo/registry,",
            "--transform=s,^config,usr/local/cargo/config,",
            "--directory", self.root(), ".", "--directory", sysroot.parent, sysroot.name, "--directory", cargo, *kept,
            settings=["ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true",
                      "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])

    def python_image(self):
        """Debian with the wheels of the example's model server."""
        requirements = MODEL / "requirements.txt"
        image = tag("python", SUITE, PACKAGES, requirements.read_text())
        if engine.has_image(image):
            return image
        wheels = self.directory / "wheels"
        # For the Python that is in there, which need not be this one.
        [python] = self.root().glob("usr/bin/python3.*[0-9]")
        must([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
              "--only-binary=:all:", "--python-version", python.name.removeprefix("python"), "--dest", wheels, "-r",
              requirements], timeout=600)
        return import_tree(
            image, "--exclude=./var/cache/apt/archives/*.deb", "--transform=s,^wheels,usr/local/wheels,",
            "--directory", self.root(), ".", "--directory", self.directory, "wheels",
            settings=["ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/usr/local/wheels"])

    def built(self, quickly=False):
        """The image of the Dockerfile; `quickly` without what makes the program fast."""
        words = ["--build-arg", f"BUILD_IMAGE={self.build_image()}", "--build-arg", f"RUN_IMAGE={self.run_image()}"]
        if quickly:
            words += ["--build-arg", "CARGO_PROFILE_RELEASE_LTO=off", "--build-arg", "CARGO_PROFILE_RELEASE_OPT_LEVEL=0"]
        # Its first stage by itself: what was built stays for the next run, and only the last of it.
        before = engine.run("image", "inspect", "--format", "{{.Id}}", STAGE).stdout.strip()
        engine.build(STAGE, ROOT, "--target", "build", *words)
        image = f"{engine.RUN}:built"
        engine.build(image, ROOT, *words, "--build-arg", "VERSION=0.1.0-test")
        if before and before != engine.docker("image", "inspect", "--format", "{{.Id}}", STAGE):
            engine.run("image", "rm", before)
        return image

    def of_program(self, binary):
        """The last stage of the Dockerfile, with a program that is there already in the place of the first."""
        image = f"{engine.RUN}:program"
        with tempfile.TemporaryDirectory(dir=self.directory) as context:
            must(["strip", "--output-file", Path(context) / "scorefront", binary])
            text = (ROOT / "Dockerfile").read_text()
            last = text[text.rindex("FROM ${RUN_IMAGE}"):]
            last = last.replace("--from=build /src/target/release/scorefront", "scorefront")
            (Path(context) / "Dockerfile").write_text(f"ARG RUN_IMAGE\n{last}")
            engine.build(image, context, "--build-arg", f"RUN_IMAGE={self.run_image()}")
        return image
