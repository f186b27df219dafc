"""Chat templates written by hand after the four common forms, and what transformers makes of conversations with them.

    ~/.cache/quartz-interop/hf/bin/python tests/golden/chat/make.py

writes cases.json beside this file: template, messages, and the expected text (null: the template raises an error)."""

import json
import os

from transformers.utils.chat_template_utils import render_jinja_template

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}"
)

CHATML = """{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

CHATML_SYSTEM = """{%- if messages[0].role != "system" %}
    {{- "<|im_start|>system\\nYou're a test's assistant.<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {#- every turn alike #}
    {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor %}
"""

CHATML_THINK = """{%- set ns = namespace(open=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" %}
        {%- set ns.open = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- else %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
"""

HEADER = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>'"

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ " + HEADER + " }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

LLAMA31 = (
    """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- """
    + HEADER
    + """ }}
{%- endfor %}
"""
)


def mistral(user, answer, where=None):
    """`user`: what stands before and after its content; `where`: "first" or "last" user message gets the system's."""
    head = "{{- bos_token }}"
    loop = "{%- for message in messages %}"
    before, after = user
    turn = "{{- '" + before + "' + message['content'] + '" + after + "' }}"
    if where:
        head = (
            "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
            "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}" + head
        )
        loop = "{%- for message in rest %}"
        turn = (
            "{%- if loop." + where + " and system_message is defined %}{{- '" + before + "' + system_message + '\\n\\n' + "
            "message['content'] + '" + after + "' }}{%- else %}" + turn + "{%- endif %}"
        )
    return (
        head + loop + ALTERNATE + "{%- if message['role'] == 'user' %}" + turn
        + "{%- elif message['role'] == 'assistant' %}{{- " + answer + " }}{%- endif %}{%- endfor %}"
    )


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}" + ALTERNATE
    + "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)

GEMMA3 = (
    """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    """
    + ALTERNATE
    + """
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{- '<end_of_turn>\\n' }}
{%- endfor -%}
"""
)

TEMPLATES = {
    "chatml": CHATML,
    "chatml, system by default": CHATML_SYSTEM,
    "chatml, thinking": CHATML_THINK,
    "llama-3": LLAMA3,
    "llama-3.1": LLAMA31,
    "mistral 1": mistral(("[INST] ", " [/INST]"), "message['content'] + eos_token + ' '"),
    "mistral 2, system first": mistral((" [INST] ", " [/INST]"), "' ' + message['content'] | trim + eos_token", "first"),
    "mistral 3, system last": mistral(("[INST]", "[/INST]"), "message['content'] + eos_token", "last"),
    "gemma": GEMMA,
    "gemma 3": GEMMA3,
}


def say(*texts, system=None):
    """User and assistant in turns."""
    head = [{"role": "system", "content": system}] if system is not None else []
    return head + [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


CONVERSATIONS = [
    say("Hello"),
    say("Hello", "Hi there"),
    say(" Who are you? ", "  I am.\n", "Why?", "Because\u00a0 ", system="Be brief."),
    say("It's \"q\"", "", "\u2003wide\u2003", system=" A\n"),
    say("q", "<think>\n\nhm\n</think>\n\nyes", "r", "<think>x</think>no"),
    say("q", "a") + [{"role": "assistant", "content": "b"}],
    say("q") + [{"role": "assistant", "content": "<think>\nm\n</think>\n\na"}, {"role": "assistant", "content": "b"}],
    [{"role": "assistant", "content": "b"}],
]


def expected(template, messages):
    try:
        return render_jinja_template([messages], chat_template=template, bos_token="<s>", eos_token="</s>")[0][0]
    except Exception:
        return None


cases = [
    {"name": name, "template": template, "messages": messages, "expected": expected(template, messages)}
    for name, template in TEMPLATES.items()
    for messages in CONVERSATIONS
]
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json"), "w") as f:
    json.dump(cases, f, indent=1)
    f.write("\n")
