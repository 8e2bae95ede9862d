"""One suite of tests, within its share of time: python tools/suite.py NAME SECONDS PATH...

It prints its seconds, and fails when it takes half as long again as its share: a suite that grows is noticed by who lets it.
"""

import subprocess
import sys
import time


def main(name: str, share: str, *paths: str) -> int:
    begun = time.monotonic()
    print(f"tilekv: running the suite {name}", flush=True)
    code = subprocess.run([sys.executable, "-P", "-m", "pytest", *paths], check=False).returncode
    took = time.monotonic() - begun
    print(f"tilekv: the suite {name} took {took:.0f} s of {share}")
    if took > 1.5 * float(share):
        print(f"tilekv: the suite {name} takes more than half as long again as its share")
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
