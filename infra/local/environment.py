"""Settings of the shell must not lead boto3 away from the local database."""

import os


def isolate() -> None:
    """Replace this process's AWS settings with local ones, and exempt loopback from proxies."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    )
    # Programs that read both spellings prefer the lower-case one.
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    no_proxy = ",".join(filter(None, (exempt, "localhost", "127.0.0.1")))
    os.environ.update(NO_PROXY=no_proxy, no_proxy=no_proxy)
