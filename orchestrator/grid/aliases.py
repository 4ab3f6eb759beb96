"""Other names of what a grid may name: hints only, as it must say the registered name."""

from __future__ import annotations

from orchestrator.errors import squeeze

_OTHER_NAMES = {
    # attacks
    "apgd": ("auto PGD", "APGD-CE", "APGD-DLR", "APGD-T", "auto projected gradient descent"),
    "bim": ("I-FGSM", "I-FGM", "basic iterative", "basic iterative method", "iterative FGSM"),
    "carlini_wagner": (
        "C&W",
        "C&W L2",
        "Carlini",
        "Carlini L2",
        "Carlini & Wagner L2",
        "Carlini and Wagner",
        "L2 Carlini & Wagner",
    ),
    "ddn": ("decoupled direction and norm", "decoupled direction norm"),
    "deepfool": ("deep fool attack", "DeepFool L2", "DF"),
    "fab": ("fast adaptive boundary", "FAB-T"),
    "fgsm": ("FGM", "fast gradient sign", "fast gradient sign method", "fast gradient method"),
    "fmn": ("fast minimum norm",),
    "noise": ("random noise", "uniform noise", "additive uniform noise"),
    "pgd": ("projected gradient descent", "projected gradient", "Madry", "PGD attack"),
    "square": ("square attack",),
    "standard": ("AutoAttack", "AA"),
    # defences
    "adversarial_training": ("AT", "PGD-AT", "Madry training", "fast adversarial training", "FGSM training"),
    "bit_depth": ("bit depth reduction", "colour depth", "color depth", "feature squeezing"),
    "gaussian_augmentation": ("noise augmentation", "Gaussian data augmentation", "noisy training"),
    "gaussian_noise": ("additive noise", "Gaussian"),
    "jpeg": ("jpg", "JPEG compression"),
    "label_smoothing": ("smoothed labels", "soft labels"),
    "median_smoothing": ("median", "median filter", "spatial smoothing"),
    "random_resize_pad": ("random resizing and padding", "randomization", "randomisation"),
    # datasets
    "cifar10": ("CIFAR",),
    "digits": ("load_digits", "sklearn digits", "optdigits"),
    "fashion_mnist": ("FMNIST", "F-MNIST", "fashion"),
    # models
    "efficientnet_b0": ("EfficientNet",),
    "efficientnet_v2_s": ("EfficientNet V2",),
    "inception_resnet_v2": ("Inception-ResNet",),
    "inception_v3": ("Inception",),
    "mobilenet": ("MobileNet V1",),
    "mobilenet_v3_small": ("MobileNet V3",),
    "nasnet_mobile": ("NASNet",),
    "resnet50": ("ResNet", "ResNet-50 V1"),
    "resnet50_v2": ("ResNet V2",),
    "vgg16": ("VGG",),
}

ALIASES = {squeeze(other): name for name, others in _OTHER_NAMES.items() for other in others}
"""Another name, squeezed, to the registered one. What differs in case, "-", "_" and spaces needs no entry."""
