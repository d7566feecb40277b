"""What a stack's Telegram bot needs: `make telegram-webhook`, `make telegram-token` and `make table-stream`.

The first prints what to run and what to tell BotFather. It neither needs nor shows the bot's token or an access key: they are shell
variables in what it prints. The second reads the token without echoing it, asks Telegram whose it is, and stores it in SSM. The
third turns on the stream of a table that is not the stack's own.

https://core.telegram.org/bots/api#setwebhook
"""

import argparse
import getpass
import json
import sys

import urllib3

from infra.stack import CONFIG, CommandError, connect, describe, exit_on_error
from telegram import messages

UPDATES = ["message", "callback_query"]
"""The kinds of updates that functions/telegram/receive_telegram.py handles."""


def instructions(api_url: str, stack: str) -> str:
    """Shell commands that set the webhook, with comments that say what to tell BotFather."""
    commands = {
        language: "\n".join(f"#   {name} - {description}" for name, description in words.commands.items())
        for language, words in (("English", messages.ENGLISH), ("Russian", messages.RUSSIAN))
    }
    return f"""\
# Paste the bot's token, which BotFather shows, and press Enter: it stays in this shell.
read -r TOKEN

# An access key that works only for Telegram's updates. To replace it later, run this again, then revoke the older key.
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
    """Store the token in SSM under this name, if Telegram knows it; return the bot's user name. Raises `CommandError`."""
    try:
        answer = urllib3.request("POST", f"{api_url}/bot{token}/getMe", retries=False, timeout=10).json()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        reason = f"Telegram could not be reached, or gave no valid answer ({type(error).__name__})"
        raise CommandError(f"{reason}. Nothing was stored.") from None
    if not answer.get("ok"):
        raise CommandError(f"Telegram does not know this token ({answer.get('description')}). Nothing was stored.")
    connect().client("ssm", config=CONFIG).put_parameter(Name=name, Value=token, Type="SecureString", Overwrite=True)
    return str(answer["result"]["username"])


def turn_stream_on(table: str) -> str:
    """The ARN of a table's stream, which is turned on if it is off. Raises `CommandError` if its records have no new images."""
    dynamodb = connect().client("dynamodb", config=CONFIG)
    found = dynamodb.describe_table(TableName=table)["Table"]
    if not found.get("StreamSpecification", {}).get("StreamEnabled"):
        found = dynamodb.update_table(
            TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        )["TableDescription"]
    if found["StreamSpecification"].get("StreamViewType") not in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        raise CommandError(
            f"The stream of {table} does not contain new images, which the function's filter needs to recognize incidents."
        )
    return found["LatestStreamArn"]


def _print_webhook(name: str) -> None:
    stack = describe(connect(), name)
    if not stack.parameters.get("TelegramChats"):
        raise CommandError(
            f'The stack {name} serves no chat: make deploy PARAMETERS="TelegramChats=-1001234567890" STACK={name}'
        )
    print(instructions(stack.url, name), end="")


def _store_token(stack: str) -> None:
    parameters = describe(connect(), stack).parameters
    name = parameters.get("TelegramTokenParameter") or f"/{stack}/telegram-token"
    token = (getpass.getpass("The bot's token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    bot = store_token(token, parameters.get("TelegramApiUrl") or "https://api.telegram.org", name)
    print(f"The token of @{bot} is stored as {name}.")
    if not parameters.get("TelegramTokenParameter"):
        print(f'Now: make deploy PARAMETERS="TelegramTokenParameter={name}" STACK={stack}')


def _print_stream(table: str) -> None:
    if not table:
        raise CommandError("Which table? make table-stream TABLE=name")
    print(f'PARAMETERS="TableStream={turn_stream_on(table)}"')


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.telegram", description="What a stack's Telegram bot needs.")
    parser.add_argument("what", choices=["webhook", "token", "stream"])
    parser.add_argument("--stack", default="incident-api")
    parser.add_argument("--table", default="")
    options = parser.parse_args()
    with exit_on_error():
        match options.what:
            case "webhook":
                _print_webhook(options.stack)
            case "token":
                _store_token(options.stack)
            case "stream":
                _print_stream(options.table)


if __name__ == "__main__":
    main()
