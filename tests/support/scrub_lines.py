"""Three hundred lines with personal data and keys of every kind, and near misses: precision and recall of --scrub.

Written by hand, as users and assistants write. A value stands between angle brackets behind its finding's name; what
looks like one and is none stands as it is. Keys, cards and accounts are put together here (`$name`), so that no scanner
of secrets takes this file for a leak, and no number is anybody's. MORE was added last.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from typing import NamedTuple


class Line(NamedTuple):
    """A line and the values in it."""

    text: str
    values: tuple[tuple[str, str], ...]
    """(finding, value)"""


_DRAW = random.Random(20261128)


def drawn(count: int, signs: str = string.ascii_letters + string.digits) -> str:
    return "".join(_DRAW.choices(signs, k=count))


def part(values: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def luhn(digits: str) -> str:
    """Card number with its last digit, which makes the sum of its digits, every second doubled, end in 0."""
    for last in "0123456789":
        number = digits + last
        doubled = [int(sign) * (2 if place % 2 else 1) for place, sign in enumerate(reversed(number))]
        if sum(sum(map(int, str(value))) for value in doubled) % 10 == 0:
            return number
    raise AssertionError


def iban(country: str, account: str) -> str:
    """Account number with its two check digits (ISO 13616)."""
    moved = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    return f"{country}{98 - int(moved) % 97:02d}{account}"


def fours(number: str, sign: str = " ") -> str:
    return sign.join(number[start : start + 4] for start in range(0, len(number), 4))


HEX = "0123456789abcdef"
NAMES = {
    "visa": luhn("453987120645813"),
    "visa2": fours(luhn("402400719283746")),
    "visa3": fours(luhn("491628305517294"), "-"),
    "mc": luhn("522233871902846"),
    "mc2": fours(luhn("535482960173825")),
    "mc3": luhn("242671830594627"),
    "amex": luhn("37914682053917"),
    "amex2": "3782 " + luhn("37829405183627")[4:10] + " " + luhn("37829405183627")[10:],
    "diners": luhn("3621874093526"),
    "discover": luhn("601183720594618"),
    "jcb": fours(luhn("356817293046582")),
    "unionpay": luhn("621738405926173"),
    "badcard": "4539871206458130" if luhn("453987120645813") != "4539871206458130" else "4539871206458131",
    "de": iban("DE", "500105175407324931"),
    "de2": fours(iban("DE", "200411550629384710")),
    "gb": iban("GB", "MIDL40051522334455"),
    "gb2": fours(iban("GB", "BARC20040138294756")),
    "fr": fours(iban("FR", "30006000011234567890189")),
    "nl": iban("NL", "RABO0315273637"),
    "nl2": fours(iban("NL", "INGB0006381927")),
    "es": iban("ES", "21000813610123456789"),
    "it": fours(iban("IT", "X0542811101000000654321")),
    "pl": iban("PL", "109010140000071219812874"),
    "ch": fours(iban("CH", "04835012345678009")),
    "at": iban("AT", "2011182221219800"),
    "be": fours(iban("BE", "096123456769")),
    "no": iban("NO", "86011117947"),
    "sk": f"sk-{drawn(48)}",
    "skproj": f"sk-proj-{drawn(64)}",
    "skant": f"sk-ant-api03-{drawn(80)}",
    "akia": f"AKIA{drawn(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}",
    "awssecret": drawn(38, string.ascii_letters + string.digits) + "/9",
    "ghp": f"ghp_{drawn(36)}",
    "ghpat": f"github_pat_{drawn(22)}_{drawn(59)}",
    "glpat": f"glpat-{drawn(20)}",
    "xoxb": f"xoxb-{drawn(12, string.digits)}-{drawn(24)}",
    "aiza": f"AIza{drawn(35)}",
    "hf": f"hf_{drawn(34, string.ascii_letters)}",
    "stripe": f"sk_live_{drawn(24)}",
    "sendgrid": f"SG.{drawn(22)}.{drawn(43)}",
    "npm": f"npm_{drawn(36)}",
    "gsk": f"gsk_{drawn(52)}",
    "gocspx": f"GOCSPX-{drawn(28)}",
    "dop": f"dop_v1_{drawn(64, HEX)}",
    "dapi": f"dapi{drawn(32, HEX)}",
    "hex32": "7" + drawn(31, HEX),
    "mixed": "q7" + drawn(30),
    "twilio": "4b" + drawn(30, HEX),
    "telegram": f"{drawn(9, '123456789')}:AA{drawn(33)}",
    "jwt": f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': '8841', 'name': 'Li Wei'})}.{drawn(43)}",
    "examplejwt": f"{part({'alg': 'HS256'})}.{part({'sub': '1234567890', 'name': 'John Doe'})}.{drawn(43)}",
    "pem": f"-----BEGIN RSA PRIVATE KEY-----\n{drawn(64)}\n{drawn(64)}\n{drawn(20)}==\n-----END RSA PRIVATE KEY-----",
    "pem2": f"-----BEGIN PRIVATE KEY-----\\n{drawn(64)}\\n{drawn(44)}\\n-----END PRIVATE KEY-----",
    "openssh": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{drawn(70)}\n{drawn(50)}=\n-----END OPENSSH PRIVATE KEY-----",
    "sha": drawn(40, HEX),
    "uuid": f"{drawn(8, HEX)}-{drawn(4, HEX)}-4{drawn(3, HEX)}-a{drawn(3, HEX)}-{drawn(12, HEX)}",
}

EMAILS = r"""
Please send the invoice to ⟨emails:maria.keller@gmx.de⟩ by Friday.
my mail is ⟨emails:li.wei88@qq.com⟩, thanks
You can reach Kwame at <⟨emails:k.okafor+shop@uni-lagos.edu.ng⟩>.
E-mail:⟨emails:s.oconnor@hotmail.co.uk⟩
[write me](mailto:⟨emails:petra_novak@seznam.cz⟩)
From: "Anna Berg" <⟨emails:anna.berg@posten.no⟩>
-⟨emails:tom@hey.com⟩
cc ⟨emails:jean-luc.dupont@orange.fr⟩; ⟨emails:m.rossi@libero.it⟩
I changed my login from ⟨emails:bob1987@yahoo.com⟩ to ⟨emails:robert.b@icloud.com⟩.
user=⟨emails:dmitri@yandex.ru⟩&plan=pro
{"to": "⟨emails:hana.sato@docomo.ne.jp⟩", "subject": "Hi"}
('⟨emails:carlos.m@correo.mx⟩', 'active')
Is ⟨emails:ops-alerts.kim@startup.io⟩ still in the list?
contact me on ⟨emails:E.SCHMIDT@WEB.DE⟩!!!
the account ⟨emails:x99@pm.me⟩ was locked
Sure, I've mailed ⟨emails:fatima.zahra@menara.ma⟩.
⟨emails:john.smith@barclays.co.uk⟩ wrote on Monday:
> ⟨emails:priya.raman@tcs.com⟩ can confirm
reply-to=⟨emails:noa@walla.co.il⟩
My name is Jane Doe and my address is ⟨emails:jane.doe.1990@gmail.com⟩
Login failed for ⟨emails:admin.mueller@firma.de⟩
Write to ⟨emails:müller@bücher.de⟩ or call.
email is ⟨emails:a.b-c_d@sub.mail.example-shop.com⟩
hi\n⟨emails:lena@posteo.net⟩\nbye
sip:⟨emails:ravi@voip.example-net.in⟩
INSERT INTO users VALUES (7, '⟨emails:olga.p@mail.ru⟩');
Best, Ewa (⟨emails:ewa@wp.pl⟩)
https://app.io/unsubscribe?mail=⟨emails:greg.h@comcast.net⟩
git commit --author="Sam <⟨emails:sam.t@fastmail.fm⟩>"
Bonjour, mon adresse est ⟨emails:chloe.martin@laposte.net⟩.
メールは⟨emails:kenji@softbank.jp⟩です
⟨emails:mike@acme.com⟩ is my boss
to:⟨emails:l@ll.lu⟩
maria dot keller at gmx dot de
"""

PHONES = r"""
Call me: ⟨phone_numbers:+49 30 9018 2734⟩.
tel:⟨phone_numbers:+442079460321⟩
my number is ⟨phone_numbers:(415) 984-2122⟩
It's ⟨phone_numbers:+1 917-724-5200⟩, ask for Dana.
WhatsApp ⟨phone_numbers:+33 6 82 41 93 07⟩
Mobile: ⟨phone_numbers:0170 8234567⟩
Tel. ⟨phone_numbers:030/9018-2734⟩
phone ⟨phone_numbers:020 7946 0958⟩ after six
You may text ⟨phone_numbers:646-213-8890⟩.
Fax: ⟨phone_numbers:+41 44 668 18 00⟩
I was called by ⟨phone_numbers:+91 98204 17263⟩ twice
Reach her at ⟨phone_numbers:+61 412 883 905⟩
Handy ⟨phone_numbers:0151-23948576⟩
numéro ⟨phone_numbers:06 12 93 48 57⟩
Teléfono: ⟨phone_numbers:+34 612 384 957⟩
{"phone": "⟨phone_numbers:+81 90-4823-7719⟩"}
(⟨phone_numbers:212-664-9182⟩)
Please dial ⟨phone_numbers:1-312-867-4415⟩
cell ⟨phone_numbers:(808) 733-2940⟩ or home ⟨phone_numbers:(808) 733-2941⟩
SMS to ⟨phone_numbers:+46701849302⟩
ring ⟨phone_numbers:01632 760483⟩ tonight
+⟨phone_numbers:55 11 98273 6455⟩
⟨phone_numbers:+7 916 284 77 15⟩ — Ivan
My phone number: ⟨phone_numbers:555 0172 99⟩
Phone=⟨phone_numbers:+27 82 339 4410⟩;
Call ⟨phone_numbers:+1.650.284.9917⟩
⟨phone_numbers:+86 138 1029 4857⟩微信同号
her number, ⟨phone_numbers:+972-54-773-2810⟩, is new
telephone (⟨phone_numbers:0221 47 38 19 0⟩)
office ⟨phone_numbers:+43 (0)1 71132 480⟩
You can reach me at ⟨phone_numbers:415.882.9037⟩
ich bin unter ⟨phone_numbers:0171/9283746⟩ erreichbar
the number ends in 4417
a call back to ⟨phone_numbers:09123 847 562⟩ please
"""

CARDS = r"""
my card is ⟨card_numbers:$visa⟩, exp 09/29
Card: ⟨card_numbers:$visa2⟩
charge ⟨card_numbers:$visa3⟩ please
MC ⟨card_numbers:$mc⟩ cvv 311
I typed "⟨card_numbers:$mc2⟩" and it failed.
{"pan":"⟨card_numbers:$mc3⟩"}
Amex ⟨card_numbers:$amex⟩
It is ⟨card_numbers:$amex2⟩.
Diners: ⟨card_numbers:$diners⟩
number=⟨card_numbers:$discover⟩
JCB ⟨card_numbers:$jcb⟩ was refused
银联 ⟨card_numbers:$unionpay⟩
(⟨card_numbers:$visa⟩)
old ⟨card_numbers:$mc⟩ new ⟨card_numbers:$visa⟩
Kreditkarte ⟨card_numbers:$visa2⟩ gültig bis 12/28
'⟨card_numbers:$discover⟩', 'declined'
ending 8136
"""

IBANS = r"""
IBAN: ⟨bank_accounts:$de⟩
Bitte auf ⟨bank_accounts:$de2⟩ überweisen.
pay to ⟨bank_accounts:$gb⟩, ref 20
My account is ⟨bank_accounts:$gb2⟩.
Compte ⟨bank_accounts:$fr⟩
rekening ⟨bank_accounts:$nl⟩
⟨bank_accounts:$nl2⟩ t.n.v. J. de Vries
cuenta=⟨bank_accounts:$es⟩
sul conto ⟨bank_accounts:$it⟩
przelew na ⟨bank_accounts:$pl⟩
{"iban":"⟨bank_accounts:$ch⟩"}
Konto (⟨bank_accounts:$at⟩)
"⟨bank_accounts:$be⟩"
kontonummer ⟨bank_accounts:$no⟩!
from ⟨bank_accounts:$de⟩ to ⟨bank_accounts:$gb⟩
BIC COBADEFF, ⟨bank_accounts:$de2⟩
account 5407324931 at sort code 50-01-05
"""

ADDRESSES = r"""
blocked ⟨ip_addresses:83.149.9.216⟩ at noon
ssh root@⟨ip_addresses:93.184.215.14⟩
My IP is ⟨ip_addresses:5.9.14.21⟩.
from ⟨ip_addresses:185.220.101.47⟩:443
"remote_addr": "⟨ip_addresses:91.198.174.192⟩"
server ⟨ip_addresses:2.16.4.9⟩ is down
ping ⟨ip_addresses:151.101.1.69⟩
client ⟨ip_addresses:77.88.55.242⟩ - - [10/Oct/2026:13:55:36]
A record: ⟨ip_addresses:104.26.10.78⟩
http://⟨ip_addresses:46.101.88.199⟩/login
⟨ip_addresses:2a02:8109:9a40:1c::1⟩ logged in
IPv6 [⟨ip_addresses:2001:4860:1b2c::68⟩]:8080
inet6 ⟨ip_addresses:2603:3024:18f1:5a00:d1c:77ab:90e2:41⟩
host ⟨ip_addresses:12.7.210.3⟩
between ⟨ip_addresses:81.2.69.142⟩ and ⟨ip_addresses:81.2.69.160⟩
whois ⟨ip_addresses:217.160.0.187⟩
peer ⟨ip_addresses:3.5.8.13⟩ timed out
"""

SECRETS = r"""
OPENAI_API_KEY=⟨secret_keys:$sk⟩
client = OpenAI(api_key="⟨secret_keys:$skproj⟩")
export ANTHROPIC_API_KEY=⟨secret_keys:$skant⟩
aws_access_key_id = ⟨secret_keys:$akia⟩
aws_secret_access_key = ⟨secret_keys:$awssecret⟩
git clone with ⟨secret_keys:$ghp⟩
token: ⟨secret_keys:$ghpat⟩
GitLab ⟨secret_keys:$glpat⟩ expired
slack ⟨secret_keys:$xoxb⟩
maps key ⟨secret_keys:$aiza⟩
login(token='⟨secret_keys:$hf⟩')
stripe.api_key = '⟨secret_keys:$stripe⟩'
SENDGRID=⟨secret_keys:$sendgrid⟩
//registry.npmjs.org/:_authToken=⟨secret_keys:$npm⟩
groq ⟨secret_keys:$gsk⟩
client_secret: ⟨secret_keys:$gocspx⟩
DO_TOKEN ⟨secret_keys:$dop⟩
databricks ⟨secret_keys:$dapi⟩
api_key: "⟨secret_keys:$hex32⟩"
"apiKey": "⟨secret_keys:$mixed⟩"
TWILIO_AUTH_TOKEN=⟨secret_keys:$twilio⟩
my bot ⟨secret_keys:$telegram⟩
Authorization: Bearer ⟨secret_keys:$jwt⟩
cookie session=⟨secret_keys:$jwt⟩;
⟨secret_keys:$pem⟩
"private_key": "⟨secret_keys:$pem2⟩"
key below ⟨secret_keys:$openssh⟩ end
I pasted ⟨secret_keys:$sk⟩ by accident, can you see it?
Use ⟨secret_keys:$ghp⟩ as the password.
key=⟨secret_keys:$aiza⟩&q=rome
password: ⟨secret_keys:$mixed⟩
secret ⟨secret_keys:$hex32⟩
my password is hunter2
"""

LOGINS = r"""
postgres://⟨url_passwords:app:kR8vq2Lx⟩@db.shop.io:5432/main
git clone https://⟨url_passwords:li:9fGh3kPq⟩@git.firma.de/x.git
redis://⟨url_passwords:cache:zx81qq⟩@10.0.0.5:6379
mongodb+srv://⟨url_passwords:maria:Tr0ub4dor⟩@cluster0.ab1cd.mongodb.net
ftp://⟨url_passwords:upload:Sommer2026!⟩@ftp.agentur.de
curl http://⟨url_passwords:ops:p4nther9⟩@monitor.intra/health
DATABASE_URL="mysql://⟨url_passwords:root:vNq81zzT⟩@mysql.internal/app"
amqp://⟨url_passwords:queue:hX7-plum⟩@mq.acme.io/%2f
smtp://⟨url_passwords:mailer:Bl4ckb3rry⟩@smtp.host.net:587
proxy=http://⟨url_passwords:dana:qwe987rty⟩@proxy.corp:3128
"""

NOTHING = r"""
Write to support@acme.com for help.
info@shop.de, sales@shop.de and hr@shop.de are ours.
user@example.com is a placeholder
jane.doe@example.org and bob@test
git@github.com:karpathy/nanoGPT.git
noreply@service.com sends it
npm i @types/node@18.2.0
icon@2x.png is missing
follow @maria_k on Mastodon
pip install kto@git+https://x.io
E = mc2 @ home
decorators such as @app.route("/")
a@b is no address
price: 3 @ 4.50
name@host in the config
meet @ 7.30 p.m.
matrix A @ B.T
christmas.tree@ the mall
The ISBN is 978-3-16-148410-0.
on 2024-01-02 at 03:04:05
pi is 3.14159265358979323846
order 12345678 was shipped
tracking 1Z999AA10123456784
between 1914-1918 and 1939-1945
the ratio is 16:9, 1920x1080
12 + 345678901 = 345678913
472547338 + 1 = 472547339
population 83,200,000
$1,234,567.89 in total
Call 911 in an emergency.
Call 1-800-201-7575 toll-free
dial 112
phone model 12345
area 51, room 1407
(1) 200 g flour (2) 300 ml milk
row 4, column 17, cell B12
invoice no. 2026-0004711
version 10.15.7, build 19H2
8 800 555 3535 is in a song
numbers: 1 2 3 4 5 6 7 8 9 10
0.1 + 0.2 = 0.30000000000000004
call it 20 times
the number 7 is prime
text me when you arrive
+1 for the idea
UTC+01:00 or +0200
x+1234567890
- 2019-2023: engineer
SKU 4006381333931
EAN 5901234123457
test card 4111 1111 1111 1111
use 4242424242424242 in test mode
378282246310005 and 5555 5555 5555 4444 are examples
order $badcard
card 4539 8712 0645 8139
part no. 1000 2000 3000 4000
0000 0000 0000 0000
1234 5678 9012 3456
timestamp 1791000000000
unix 1791000000000000
9007199254740993 is 2**53 + 1
id 6011-0000-0000-0000
GB82 WEST 1234 5698 7654 32 is the registry's
DE89370400440532013000 too
DE00 5001 0517 5407 3249 31
XX12 3456 7890 1234 56
US12 ABCD 3456
ES2015 and ES2016 are versions
HTTP2 OVER TLS13
AB12 CDEF GHIJ KLMN
127.0.0.1 and 0.0.0.0
192.168.178.44 is my router
10.0.0.12, 172.20.99.80
dns 8.8.8.8 and 1.1.1.1
203.0.113.77 is for documentation
mask 255.255.255.0
version 1.2.3.4 and 4.18.0.25
section 2.14.3.1
Chrome/120.0.6099.224
99.99.99.999
12:30:45 and 1:2:3
std::vector<int>
fe80::1 and ::1
2001:db8::ff00:42:8329
00:1A:2B:3C:4D:5E
sk-your-key-here-xxxxxxxxxxxxxxxx
sk-1234567890abcdef1234567890abcdef
AKIAIOSFODNN7EXAMPLE
hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
api_key = os.environ["OPENAI_API_KEY"]
password = "password123"
token = get_token_from_the_config_file()
secret santa, secret ingredients
ask-me-anything-about-the-2-best-skiing-areas
commit $sha
uuid $uuid
-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----
$examplejwt
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
postgres://user:password@localhost:5432/db
https://user:pass@example.com
mysql://${USER}:${PASS}@host/db
https://x.io/@maria/12
http://[::1]:8080/
time is 12:45@noon
ratio ://a
"""

MORE = r"""
Hello, this is Tomas, ⟨emails:tomas.havel@centrum.cz⟩, calling from ⟨phone_numbers:+420 603 918 274⟩.
You said ⟨emails:yuki@nifty.com⟩; is that right?
(⟨emails:d.cohen@technion.ac.il⟩)
Our CEO is ⟨emails:ceo@northwind-traders.com⟩
please cancel the card ⟨card_numbers:$mc⟩.
the ⟨card_numbers:$visa3⟩ one
Meine IBAN lautet ⟨bank_accounts:$de2⟩.
send 20 € to ⟨bank_accounts:$nl⟩
our gateway is ⟨ip_addresses:62.210.16.61⟩,
attack from ⟨ip_addresses:2a01:4f8:c17:b8f::2⟩
os.environ["GITHUB_TOKEN"] = "⟨secret_keys:$ghp⟩"
-H "x-api-key: ⟨secret_keys:$skant⟩"
svn co https://⟨url_passwords:jan:w8woord77⟩@svn.bedrijf.nl/trunk
Please call my wife at ⟨phone_numbers:0664 738 2910⟩
Ligue para ⟨phone_numbers:(11) 98273-6455⟩
Rufen Sie mich unter ⟨phone_numbers:+43 664 7382910⟩ an
my landline is ⟨phone_numbers:0131 496 0772⟩
⟨phone_numbers:503-882-7719⟩ is Bob's
the PIN is 4471
you can mail me at work
the 1996-1997 season, 82-0 record
chapter 12.34.5.6 of the code
a 16-digit number such as 1029384756102938
version 2026.11.28.3 of the app
press 1 for sales, 2 for support
price list 2026: 100-200-3000
FR76 is how French accounts start
import torch.nn.functional as F
the key to success is practice 24 7
sha256:$sha$sha
3:16 in the book of John
call function f(1234567)
"""


def _line(text: str) -> Line:
    text = re.sub(r"\$([a-z0-9]+)", lambda match: NAMES.get(match[1], match[0]), text)
    values = tuple(re.findall(r"⟨(\w+?):(.*?)⟩", text, re.DOTALL))
    return Line(re.sub(r"⟨\w+?:(.*?)⟩", r"\1", text, flags=re.DOTALL), values)


_GROUPS = (EMAILS, PHONES, CARDS, IBANS, ADDRESSES, SECRETS, LOGINS, NOTHING, MORE)
LINES = tuple(_line(text) for group in _GROUPS for text in group.strip("\n").split("\n"))
