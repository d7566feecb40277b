"""How to connect a Telegram bot with a deployed stack: `make telegram-webhook`.

It prints what to run and what to tell BotFather. It calls nothing but CloudFormation, and neither asks for nor shows the bot's
token or an access key: both are shell variables in what it prints.

https://core.telegram.org/bots/api#setwebhook
"""

import argparse
import json
import sys

from botocore.exceptions import BotoCoreError, ClientError

from infra.keys import KeysError, connect, describe
from telegram import messages

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.telegram", description="How to connect a Telegram bot with a stack.")
    parser.add_argument("--stack", required=True)
    stack = parser.parse_args().stack
    try:
        found = describe(connect(), stack)
    except (KeysError, BotoCoreError, ClientError) as error:
        sys.exit(" ".join(str(error).split()))
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    if not parameters.get("TelegramChats"):
        sys.exit(
            f'The stack {stack} serves no chat: make deploy PARAMETERS="TelegramChats=-1001234567890" STACK={stack}'
        )
    print(instructions(outputs.get("DomainUrl", outputs["ApiUrl"]), stack), end="")


if __name__ == "__main__":
    main()
