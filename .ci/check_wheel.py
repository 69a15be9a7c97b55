"""What a wheel must hold, and must not: `python .ci/check_wheel.py WHEEL`."""

import re
import sys
import zipfile

NEEDED = [
    r"musicgen_ext/__init__\.py",
    r"musicgen_ext/_core\..*(so|pyd)",
    r"musicgen_ext/_core\.pyi",
    r"musicgen_ext/py\.typed",
    r"musicgen_ext/bundled/chorale\.safetensors",
    r"musicgen_ext-.*\.dist-info/licenses/LICENSE",
    r"musicgen_ext-.*\.dist-info/entry_points\.txt",
]
UNWANTED = [r".*\.(cpp|h|inl|cu|o)", r".*__pycache__.*", r"(tests|benches|python|musicgen_reference)/.*"]

names = zipfile.ZipFile(sys.argv[1]).namelist()
for pattern in NEEDED:
    if not any(re.fullmatch(pattern, name) for name in names):
        sys.exit(f"error: {sys.argv[1]}: expected a file like {pattern}, got {names}")
for pattern in UNWANTED:
    found = [name for name in names if re.fullmatch(pattern, name)]
    if found:
        sys.exit(f"error: {sys.argv[1]}: expected nothing like {pattern}, got {found}")
print(f"{sys.argv[1]}: {len(names)} files, nothing missing, nothing foreign")
