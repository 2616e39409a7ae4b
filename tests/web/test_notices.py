from fertool.web.notices import all_notices


def test_the_licenses_of_all_software_travel_with_the_page():
    text = all_notices("MIT License of the detector")
    for part in (
        "MIT License of the detector",
        "Copyright (c) Microsoft Corporation",
        "https://gitlab.com/libeigen/eigen",
        "Apache License 2.0",
    ):
        assert part in text
    # The notices of the third parties are hundreds of pages.
    assert len(text) > 100_000
