"""The stages without heavy packages; tests/e2e/test_in_image.py runs `in_image`."""

collect_ignore = ["in_image"]
