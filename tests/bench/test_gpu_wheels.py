"""What is collected for a machine without a network: what it lacks, no more, and no library for other cards."""

import zipfile

import pytest
from gpu.wheels import lacking, reduce


def package(name: str, *needs: str) -> dict:
    return {"metadata": {"name": name, "version": "1", "requires_dist": list(needs)}}


def test_only_what_the_machine_and_its_packages_do_not_bring_is_collected():
    report = {
        "environment": {"python_version": "3.12", "sys_platform": "linux", "platform_system": "Linux"},
        "install": [
            package("torch", "Sym_Py>=1", 'toolkit[runtime]==13; sys_platform == "linux"', 'numpy; extra == "all"'),
            package("sym.py"),
            package("toolkit", 'cuda-runtime; extra == "runtime"', 'cuda-fft; extra == "fft"'),
            package("cuda-runtime"), package("cuda-fft"), package("numpy"),
            package("textual", "rich", 'old; python_version < "3.9"'), package("rich"),
        ],
    }  # fmt: skip
    assert lacking(report, ["torch==1"]) == ["cuda-fft==1", "numpy==1", "rich==1", "textual==1"]
    assert lacking(report, ["torch[all]", "rich"]) == ["cuda-fft==1", "textual==1"]


def test_bitsandbytes_keeps_the_library_of_one_cuda_and_the_cpus(tmp_path):
    wheel = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    libraries = [f"bitsandbytes/libbitsandbytes_{of}.so" for of in ("cpu", "cuda118", "cuda130", "rocm62", "xpu")]
    with zipfile.ZipFile(wheel, "w") as made:
        for name in ("bitsandbytes/__init__.py", *libraries):
            made.writestr(name, name)
        made.writestr("bitsandbytes-1.dist-info/RECORD", "".join(f"{name},,\n" for name in libraries))
    with pytest.raises(ValueError, match=r"no library for CUDA 999; it has cpu, cuda118"):
        reduce(wheel, "999")
    assert len(reduce(wheel, "130")) == 3
    with zipfile.ZipFile(wheel) as small:
        kept = set(small.namelist())
        record = small.read("bitsandbytes-1.dist-info/RECORD").decode()
    assert kept == {"bitsandbytes/__init__.py", libraries[0], libraries[2], "bitsandbytes-1.dist-info/RECORD"}
    assert "cuda118" not in record and "libbitsandbytes_cuda130.so,sha256=" in record
