"""The zips that the functions come in."""

import io
import zipfile

from landfall_local.release import newest_glibc
from landfall_local.stack import package


def test_a_zip_holds_an_executable_bootstrap_and_the_declaration_beside_it():
    archive = zipfile.ZipFile(io.BytesIO(package(b"program", b"version = 1\n")))
    assert sorted(archive.namelist()) == ["bootstrap", "landfall.toml"]
    assert archive.getinfo("bootstrap").external_attr >> 16 & 0o777 == 0o755
    assert archive.read("landfall.toml") == b"version = 1\n"


def test_the_same_program_makes_the_same_zip():
    assert package(b"program", b"version = 1\n") == package(b"program", b"version = 1\n")


def test_the_newest_c_library_that_a_program_asks_for_is_found():
    assert newest_glibc(b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0") == (2, 34)
    assert newest_glibc(b"static") == (0, 0)
