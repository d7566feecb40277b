"""What a stack's Telegram bot needs: `make telegram-webhook`, `make telegram-token` and `make table-stream`.

The first prints what to run and what to tell BotFather: it neither asks for nor shows the bot's token or an access key, which are
shell variables in what it prints. The second reads the token without showing it, asks Telegram whose it is, and stores it in SSM.
The third turns on the stream of a table that is not the stack's own.

https://core.telegram.org/bots/api#setwebhook
"""

import argparse
import getpass
import json
import sys
from typing import TYPE_CHECKING

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from infra.keys import CONFIG, KeysError, connect, describe
from telegram import messages

if TYPE_CHECKING:
    from types_boto3_cloudformation.type_defs import StackTypeDef

UPDATES = ["message", "callback_query"]
"""The kinds of updates that functions/receive_telegram.py answers."""


def instructions(api_url: str, stack: str) -> str:
    """Shell commands that set the webhook, and in comments what BotFather is to be told."""
    commands = {
        language: "\n".join(f"#   {name} - {description}" for name, description in words.commands.items())
        for language, words in (("English", messages.ENGLISH), ("Russian", messages.RUSSIAN))
    }
    return f"""\
# Paste the bot's token, which BotFather shows, and press Enter: it stays in this shell.
read -r TOKEN

# An access key that is good for Telegram's updates alone. To replace it later, run this again, then revoke the older key.
KEY=$(make --silent key NAME=telegram ROLE=telegram STACK={stack})

curl --fail-with-body "https://api.telegram.org/bot$TOKEN/setWebhook" \\
  --data-urlencode url={api_url}/telegram \\
  --data-urlencode "secret_token=$KEY" \\
  --data-urlencode 'allowed_updates={json.dumps(UPDATES)}'

# The menu of commands: send /setcommands to BotFather, choose the bot, and send one of these.
#
{commands["English"]}
#
{commands["Russian"]}
"""


def store_token(token: str, api_url: str, name: str) -> str:
    """Store a token that Telegram knows under this name in SSM; return the bot's name. Raises `KeysError`."""
    try:
        response = urllib3.request("POST", f"{api_url}/bot{token}/getMe", retries=False, timeout=10)
        answer = response.json()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise KeysError(f"Telegram cannot be asked ({type(error).__name__}). Nothing was stored.") from None
    if not answer.get("ok"):
        raise KeysError(f"Telegram does not know this token ({answer.get('description')}). Nothing was stored.")
    connect().client("ssm", config=CONFIG).put_parameter(Name=name, Value=token, Type="SecureString", Overwrite=True)
    return str(answer["result"]["username"])


def turn_stream_on(table: str) -> str:
    """The ARN of a table's stream, which is turned on if it is off. Raises `KeysError` if it has not what a record needs."""
    dynamodb = connect().client("dynamodb", config=CONFIG)
    found = dynamodb.describe_table(TableName=table)["Table"]
    if not found.get("StreamSpecification", {}).get("StreamEnabled"):
        found = dynamodb.update_table(
            TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        )["TableDescription"]
    if found["StreamSpecification"].get("StreamViewType") not in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        raise KeysError(f"The stream of {table} has no new images, by which the function's filter tells incidents.")
    return found["LatestStreamArn"]


def _parameters(found: "StackTypeDef") -> dict[str, str]:
    return {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}


def _print_webhook(stack: str) -> None:
    found = describe(connect(), stack)
    if not _parameters(found).get("TelegramChats"):
        raise KeysError(
            f'The stack {stack} serves no chat: make deploy PARAMETERS="TelegramChats=-1001234567890" STACK={stack}'
        )
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    print(instructions(outputs.get("DomainUrl", outputs["ApiUrl"]), stack), end="")


def _store_token(stack: str) -> None:
    parameters = _parameters(describe(connect(), stack))
    name = parameters.get("TelegramTokenParameter") or f"/{stack}/telegram-token"
    token = (getpass.getpass("The bot's token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    bot = store_token(token, parameters.get("TelegramApiUrl") or "https://api.telegram.org", name)
    print(f"The token of @{bot} is stored as {name}.")
    if not parameters.get("TelegramTokenParameter"):
        print(f'Now: make deploy PARAMETERS="TelegramTokenParameter={name}" STACK={stack}')


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.telegram", description="What a stack's Telegram bot needs.")
    parser.add_argument("what", choices=["webhook", "token", "stream"])
    parser.add_argument("--stack", default="incident-api")
    parser.add_argument("--table", default="")
    options = parser.parse_args()
    try:
        if options.what == "stream":
            if not options.table:
                raise KeysError("Which table? make table-stream TABLE=name")
            print(f'PARAMETERS="TableStream={turn_stream_on(options.table)}"')
        elif options.what == "token":
            _store_token(options.stack)
        else:
            _print_webhook(options.stack)
    except (KeysError, BotoCoreError, ClientError) as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
