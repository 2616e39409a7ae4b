from __future__ import annotations

from fertool.runtime.environment import instruction_sets, processor_name, read_environment

X86 = "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu sse4_2 avx2 avx512_vnni smx\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\nModel\t\t: Raspberry Pi 5\n"


def test_processor_and_vector_instructions_of_x86_and_arm() -> None:
    assert (processor_name(X86), processor_name(ARM)) == ("A Processor", "Raspberry Pi 5")
    assert instruction_sets(X86) == ("avx2", "avx512_vnni", "sse4_2")
    assert instruction_sets(ARM) == ("asimd", "asimddp")
    assert instruction_sets("") == ()


def test_versions_are_of_one_runtime_or_of_all() -> None:
    assert set(read_environment("onnxruntime").versions) == {"fertool", "onnxruntime"}
    assert {"fertool", "onnxruntime", "torch"} <= set(read_environment().versions)
