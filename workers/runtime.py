"""TensorFlow in one worker: set up with its share of the processor or of a GPU, and no more."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from workers.machine import cpu_model

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT_BYTES = 2**30


def set_up_tensorflow(*, cpus: int, gpus: float | None) -> None:
    """Import TensorFlow with its thread pools and GPU memory sized for this worker.

    `gpus`: 0 hides all of them; a whole number grows as needed; a fraction is a hard limit on one; None: as
    many as there are, if any. A process that has used TensorFlow before keeps the settings it has.

    Raises RuntimeError where TensorFlow sees fewer GPUs than the worker was given.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow leaves oneDNN off on processors that it does not know, where convolutions then take up to
    # 18 times as long (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if gpus == 0 and "tensorflow" not in sys.modules:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    _keep_freed_memory()
    import tensorflow as tf

    tf.get_logger().setLevel(logging.ERROR)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cpus)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        devices = tf.config.list_physical_devices("GPU")
        if gpus is not None and len(devices) < gpus:
            raise MissingGpuError(_missing_gpus(gpus, len(devices), tf.test.is_built_with_gpu_support()))
        if gpus == 0:
            tf.config.set_visible_devices([], "GPU")
        elif gpus is not None and gpus < 1 and devices:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(gpus * _gpu_megabytes()))
            tf.config.set_logical_device_configuration(devices[0], [limit])
        else:
            for device in devices:
                tf.config.experimental.set_memory_growth(device, True)
    except MissingGpuError:
        raise
    except RuntimeError:  # TensorFlow is running already
        return


@contextmanager
def without_extras() -> Iterator[None]:
    """Let TensorFlow be imported without what Keras imports for plots and wrappers where it is installed: a
    third of the time, and 80 MB of memory.

    For processes that are ours alone: there Keras will neither plot nor wrap for as long as they live.
    """
    hidden = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # of such a name Python says that there is none
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, sys) is None:
                del sys.modules[name]


class MissingGpuError(RuntimeError):
    """Ray has given a worker a GPU that TensorFlow does not see."""


def _missing_gpus(given: float, seen: int, built_for_gpus: bool) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    why = (
        "its driver or CUDA libraries are missing there (pip install 'tensorflow[and-cuda]', nvidia-smi)"
        if built_for_gpus
        else "this TensorFlow is built without GPU support"
    )
    return (
        f"Ray gives this worker {given:g} GPU{'s' if given > 1 else ''}, TensorFlow sees {seen} "
        f"(CUDA_VISIBLE_DEVICES: {visible}): {why}; --gpus-per-worker 0 does without"
    )


def _keep_freed_memory() -> None:
    """Have glibc reuse large blocks instead of giving them back to the system after each call.

    Their pages would have to be mapped and zeroed again: a sixth of the time of FGSM (docs/performance.md).
    Other C libraries have no such switch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def device_name() -> str:
    """What the work is done on, for people: the GPU's name, else the processor's."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        details = tf.config.experimental.get_device_details(tf.config.get_visible_devices("GPU")[0])
        return str(details.get("device_name", "GPU"))
    return cpu_model()


def library_versions() -> dict[str, str]:
    """The versions of what decides the bits of a result."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}


def _gpu_megabytes() -> float:
    """Memory of the first GPU that this process sees. TensorFlow itself tells only once it is too late."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", first]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])
