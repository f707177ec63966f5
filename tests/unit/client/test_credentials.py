"""What is a secret, and what only looks like one by its name."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

import pytest

from airflow_provider_ray.client.credentials import find_secrets, header_secrets, looks_secret, without_secrets

ORDINARY = {
    "TOKENIZERS_PARALLELISM": "false",
    "MAX_TOKENS": "16384",
    "TOKEN_LIMIT": "4096 ",
    "KEY_COLUMN": "user_id",
    "PASSWORD_MIN_LENGTH": "12",
    "PASSWORD_POLICY": "require_uppercase_and_digits",
    "AUTH_MODE": "token",
    "API_TOKEN": "none",
    "OPENAI_API_KEY": "EMPTY",
    "DB_PASSWORD": "postgres",
    "PAD_TOKEN": "<pad>",
    "EOS_TOKEN": "<|endoftext|>",
    "BOS_TOKEN": "[BOS]",
    "STOP_TOKEN": "end",
    "TOKENIZER_NAME": "bert-base-uncased",
    "TOKENIZER_MODEL": "meta-llama/Llama-3-8b",
    "TOKEN_FILE": "/var/run/secrets/token",
    "SECRET_NAME": "prod/database",
    "SECRET_REGION": "eu-west-1",
    "TOKEN_URL": "https://login.example/oauth2/token",
    "SERVICE_ACCOUNT": "ray@project.iam.gserviceaccount.com",
    "HTTP_PROXY": "http://proxy.example:3128",
    "SECRET_EXPIRES": "2026-11-28T00:00:00Z",
    "TOKEN_TTL": "3600s",
    "DB_TOKEN": "${DB_TOKEN}",
    "SECRET_VERSION": "v1.2.3",
    "TOKEN_SIZE": "512Mi",
    "SECRET": "1e-5",
    "PLACE": "anywhere",
    "COMMIT": "0123456789abcdef0123456789abcdef01234567",
    "GOOGLE_APPLICATION_CREDENTIALS": "/var/run/secrets/gcp/key.json",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/8fKq0Z3mBv7XhT2yWn5L",
    "STOP_TOKEN_TEXT": "false",
    "SEP_TOKEN": "assistant",
    "MAX_TOKEN": "1000000",
    "PASSWORD": "12345",
    "DB_PASSWORD_2": "password",
    "SECRET_REGION_2": "eu-west-1",
    "API_KEY_HEADER": "X-Api-Key-2",
    "ODBC_DSN": "warehouse_1",
    "WEBHOOK_URL": "https://hooks.example:8443/",
    "WEBHOOK_TIMEOUT": "30000000",
}
SECRET = {
    "API_TOKEN": "t0ken-of-an-api",
    "DB_PASSWORD": "hunter2",
    "DATABASE_PASSWORD": "swordfish",
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOp",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "TOKEN_2": "s3cr3t",
    "clientSecret": "Q~abcdefgh",
    "OAUTH_TOKEN": "eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJ",
    "SLACK_AUTHORIZATION": "xoxb-123456789012-abc",
}
# What is called a secret is one, even if it looks like a path, a version, a region, a number, a word or an address.
SECRET_THAT_LOOKS_ORDINARY = [
    ("AWS_SECRET_ACCESS_KEY", "/8fKq0Z3mBv7XhT2yWn5LpQ9rSd1uEc4gJa6oIk0"),
    ("API_TOKEN", "/v8hq2+Jk3l9Zx7cVbN1mQ=="),
    ("API_KEY_PROD", "/v8hq2/Jk3l9Zx7cVbN1mQ"),
    ("FERNET_KEY", "/v8hq2_Jk3l9Zx7cVbN1mQ="),
    ("ZOHO_TOKEN", "1000.8cb99dxxxxxxxxxxxxx9be93.9b8xxxxxxxxxxxxxxxf"),
    ("DB_PASSWORD", "correct-horse-battery-9"),
    ("DB_PASSWORD", "8374927465019283"),
    ("DB_PASSWORD", "2026-11-28"),
    ("DB_PASSWORD", "hunterx"),
    ("DB_PASSWORD", "Sommer@2026.Berlin"),
    ("DB_PASSWORD", "C:\\horse"),
    ("DB_PASSWORD", "$ecret12"),
    ("DB_PASSWORD", "<8fKq0Z3m!>"),
    ("DB_PASSWORD", "ftp://horse/battery"),
    ("PGPASSWORD", "correct-horse"),
    ("clientSecretValue", "correct-horse"),
    ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T04AB/B07CD/q8ZkL0m3Rw"),
    ("TEAMS_WEBHOOK", "https://example.webhook.office.com/webhookb2/secret"),
    ("SENTRY_DSN", "https://0123456789abcdef@o1.ingest.sentry.io/1"),
    ("STORAGE_CONNECTION_STRING", "Endpoint=sb://bus.example/;SharedAccessKeyName=root"),
]


@pytest.mark.parametrize(("name", "value"), ORDINARY.items())
def test_an_ordinary_value_is_no_secret_whatever_its_name(name: str, value: str) -> None:
    assert not looks_secret(name, value)
    assert find_secrets({"env_vars": {name: value}}) == set()


@pytest.mark.parametrize(("name", "value"), [*SECRET.items(), *SECRET_THAT_LOOKS_ORDINARY])
def test_a_secret_is_one(name: str, value: str) -> None:
    assert value in find_secrets({"env_vars": {name: value}})
    assert without_secrets({"env_vars": {name: value}}) == {"env_vars": {name: "***"}}


@pytest.mark.parametrize(
    ("name", "value"), [each for each in SECRET_THAT_LOOKS_ORDINARY if not set("&;,#=$<") & set(each[1])]
)
def test_a_secret_is_one_in_a_command_as_well(name: str, value: str) -> None:
    for command in (f"{name}={value} python a.py", f"python a.py --{name} {value}", f"env '{name}={value}' x"):
        assert value in find_secrets({"entrypoint": command})
        assert without_secrets(command) == command.replace(value, "***")


def test_a_secret_may_be_a_number() -> None:
    given = {"password": 8374927465019283, "max_tokens": 1_000_000, "token": True, "secret": 1}
    assert find_secrets({"parameters": given}) == {"8374927465019283"}
    assert without_secrets(given) == {**given, "password": "***"}


IN_TEXT: list[tuple[Any, str, str]] = [
    (
        "https://acc.blob.core.windows.net/c/code.zip?sv=2022-11-02&sp=r&se=2026-12-01T00:00:00Z&sig=aB3%2Fx9yZ%3D",
        "aB3%2Fx9yZ%3D",
        "https://acc.blob.core.windows.net/c/code.zip?sv=2022-11-02&sp=r&se=2026-12-01T00:00:00Z&sig=***",
    ),
    (
        "https://b.s3.amazonaws.com/a.zip?X-Amz-Expires=3600&X-Amz-Signature=0123abcd0123abcd&X-Amz-Date=20261128T",
        "0123abcd0123abcd",
        "https://b.s3.amazonaws.com/a.zip?X-Amz-Expires=3600&X-Amz-Signature=***&X-Amz-Date=20261128T",
    ),
    ("--index-url https://ci:p4ss@w0rd@pypi.example/simple", "p4ss@w0rd", "--index-url https://ci:***@pypi.example/simple"),
    ("https://ghp_16C7e42F292c6912E7@github.com/a/b.zip", "ghp_16C7e42F292c6912E7", "https://***@github.com/a/b.zip"),
    ("pkg @ git+https://x-access-token:gh0token@github.com/a/b.git", "gh0token", "pkg @ git+https://x-access-token:***@github.com/a/b.git"),
    ("https://conda.example/t/tk-12345-abc/chan", "tk-12345-abc", "https://conda.example/t/***/chan"),
    ("--env=AWS_SECRET_ACCESS_KEY=abc123def", "abc123def", "--env=AWS_SECRET_ACCESS_KEY=***"),
    ("python a.py --db-password hunter2 --rows 5", "hunter2", "python a.py --db-password *** --rows 5"),
    ("curl -H 'Authorization: Bearer abc123def456'", "abc123def456", "curl -H 'Authorization: Bearer ***'"),
    ("Protocol=https;AccountKey=aBcD1234==;Suffix=x", "aBcD1234==", "Protocol=https;AccountKey=***;Suffix=x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secret", "shown"), IN_TEXT)
def test_a_secret_in_a_text_is_found_and_hidden(text: str, secret: str, shown: str) -> None:
    assert secret in find_secrets([{"pip": [text]}])
    assert without_secrets({"pip": [text], "n": 1}) == {"pip": [shown], "n": 1}
    assert without_secrets(shown) == shown
    assert not find_secrets(shown)


def test_an_option_and_its_value_may_be_two_items() -> None:
    given = ["python", "a.py", "--db-password", "hunter2", "--tokens", "16384"]
    assert find_secrets({"entrypoint": given}) == {"hunter2"}
    assert without_secrets(given) == [*given[:3], "***", *given[4:]]


@pytest.mark.parametrize(
    "text",
    [
        "https://user@example.com/a?page=2&sort=key",
        "git+ssh://git@github.com/a/b.git",
        "https://u:${PIP_PASSWORD}@pypi.example/simple",
        "python train.py --tokens 16384 --tokenizer bert-base-uncased --key=user_id",
        "s3://bucket/a/t/b.zip",
        "Basic authentication is required",
        "numpy==2.1.0; python_version>='3.11'",
    ],
)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert find_secrets(text) == set()
    assert without_secrets(text) == text


def test_a_short_password_in_an_address_is_hidden_where_it_is_shown_but_nowhere_else() -> None:
    assert without_secrets("https://a:b@example.com/b") == "https://a:***@example.com/b"
    assert find_secrets("https://a:b@example.com/b") == set()


def test_a_secret_is_found_decoded_and_line_by_line() -> None:
    assert find_secrets("https://a:p%40ssw0rd@example.com") == {"p%40ssw0rd", "p@ssw0rd"}
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----"
    assert {"MIIEvQIBADANBg", "kqhkiG9w0BAQEF"} <= find_secrets({"PRIVATE_KEY": key})
    assert "MIIEvQIBADANBg" in find_secrets({"KEYFILE_DICT": json.dumps({"private_key": key})})


def test_names_that_an_administrator_calls_sensitive_are_believed() -> None:
    given = {"LICENCE_NUMBER": "abcdefgh", "LICENCE_KIND": "false"}
    assert find_secrets(given, ["licence"]) == {"abcdefgh"}


@pytest.mark.parametrize(
    "value",
    [
        "8374927465019283",
        "83749",
        "/v8hq2Jk3l9Zx7cVbN1mQ",
        "1000.8cb99dabc.9b8xxx",
        "correct-horse-battery-9",
        "hunterx",
    ],
)
def test_every_value_of_a_header_is_masked_with_and_without_its_scheme(value: str) -> None:
    assert header_secrets({"X-API-Key": value}) == {value}
    for scheme in ("Bearer", "Token"):
        assert header_secrets({"Authorization": f"{scheme} {value}"}) == {f"{scheme} {value}", value}


def test_headers_about_the_content_are_not_masked() -> None:
    assert header_secrets({"Content-Type": "application/json", "accept": "text/plain", "User-Agent": "a/1"}) == set()


def test_headers_are_masked_unless_they_are_words() -> None:
    headers = {"Authorization": "Bearer abc123def456", "X-Tenant": "production", "X-Debug": "false", "X-Key": "a-key"}
    assert header_secrets(headers) == {"Bearer abc123def456", "abc123def456", "a-key"}


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "a ",
            "-",
            "--a",
            "=",
            "a=",
            "://",
            "a://",
            "a://b:",
            "a:",
            "@",
            "/t/",
            "'",
            "Bearer ",
            "a_bcd1efgh",
            "token",
        ),
        *("-----BEGIN PRIVATE KEY-----", "--password ", "a=b&", "${", "a.b-c", "1a", "é"),
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    started = monotonic()
    for given in (text, f"{text}!", f"https://{text}!", f"token={text}!"):
        find_secrets({"TOKEN_NAME": given})
        without_secrets(given)
    assert monotonic() - started < 5.0
