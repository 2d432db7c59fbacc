"""Chat templates in the manner of those that come with models, and a tokenizer with their special tokens."""

import json

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}"""

LLAMA3 = """\
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%Y") %}
{%- endif %}
{%- set loop_messages = messages %}
{%- for message in loop_messages %}
    {%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' %}
    {%- set content = content + message['content'] | trim + '<|eot_id|>' %}
    {%- if loop.index0 == 0 %}
        {%- set content = bos_token + content %}
    {%- endif %}
    {{- content }}
{%- endfor %}
{{- '<!-- ' ~ date_string ~ ' -->' if tools is not none }}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

LOOPS = """\
{#- Everything at once: namespaces, macros, loop controls, slices, filters, JSON and a generation block. -#}
{%- macro header(role) -%}<|{{ role }}|>{%- endmacro -%}
{%- set ns = namespace(system='', last=-1, count=0) -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{%- set ns.system = message.content -%}{%- continue -%}{%- endif -%}
    {%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- header('system') }}
{{ ns.system if ns.system else 'You help.' }}
{{ {'messages': messages | length, 'text': "é < 'x'", 'roles': messages | map(attribute='role') | list} | tojson }}
{% for message in messages %}
    {% if message.role != 'system' %}
        {% set ns.count = ns.count + 1 %}
{{ header(message['role']) }}
        {%- if message.role == 'assistant' %}
{% generation %} {{ message.content.split('</think>')[-1].lstrip('\\n') }}<|end|>{% endgeneration %}
        {% else %}
 {{ message.content | replace('\\t', ' ') }}<|end|>
        {%- endif %}
        {%- if loop.index0 == ns.last %} ({{ ns.count }}/{{ loop.length }}{{ ', last' if loop.last }}){% endif %}
    {% endif %}
{% endfor %}
{% for number in range(10) %}
    {% if number == 3 %}{% break %}{% endif %}
{{ number }},
{%- endfor %}
{% if add_generation_prompt %}{{ header('assistant') }} {% endif %}"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "loops": LOOPS}

SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
]
BOS, EOS = 256, 257
ID_OF = {text: BOS + at for at, text in enumerate(SPECIAL)}
VOCABULARY = BOS + len(SPECIAL)


def backend() -> Backend:
    """Each byte is a token, then come the special ones. The tokenizer puts a <s> in front of what it encodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Backend(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return made


def write_tokenizer(folder, template, place="config"):
    """tokenizer.json and tokenizer_config.json, the template in it, in a list of its own or in a file beside it."""
    backend().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    config["eos_token"] |= {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False}
    if place == "config":
        config["chat_template"] = template
    elif place == "list":
        named = {"tool_use": "tools", "default": template}
        config["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
    elif place == "file":
        config["chat_template"] = "not this one"
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
