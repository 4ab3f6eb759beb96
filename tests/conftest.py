"""What every test runs under."""

import os

# As `workers.victims.runtime` has it, for the tests that import TensorFlow themselves.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
