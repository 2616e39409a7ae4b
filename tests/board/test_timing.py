import pytest

from fertool.runtime import interleaved


@pytest.mark.parametrize("runs", [1, 20, 105, 200, 997, 1000])
def test_passes_and_openings_are_those_of_bench(program, monkeypatch, runs):
    timing = program("timing")
    seen: dict[str, list[str]] = {"board": [], "home": []}

    def open_file(name, threads):
        seen["board"].append(f"open {name}")
        return lambda image: seen["board"].append(name)

    def pass_of(name):
        return lambda: seen["home"].append(name)

    def open_passes():
        seen["home"] += ["open a", "open b"]
        return [[pass_of("a")], [pass_of("b")]]

    monkeypatch.setattr(timing, "open_file", open_file)
    block, samples = timing.time_files([("a", [0]), ("b", [0])], 1, runs, 0)
    timed = interleaved.time_interleaved(open_passes, 0, runs)
    assert seen["board"] == seen["home"]
    assert (len(samples[0]) // block, block) == timed[0].shape
