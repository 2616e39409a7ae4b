from pathlib import Path


def test_a_sensor_that_cannot_be_read_is_none(program, monkeypatch):
    machine = program("machine")

    def refuse(path, **options):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert machine.celsius() is None
    assert machine.describe_machine()["processor"]
