"""Answers that only refuse: a sentence that declines, and no other sentence with substance.

The patterns are our own, here for English, in refusal_languages.py for other languages. They rather miss a refusal than
hit wrongly: one sentence of substance (an explanation, an alternative, advice) is enough to make an answer more than a
refusal.
"""

from __future__ import annotations

import re

from kto_cli.data.audit.refusal_languages import refuses_in_other_language

LONGEST = 600
"""Characters; a longer answer has other content."""
HINT = re.compile(
    r"sorry|can(?:'|’|no|\s+no)t|unable|not (?:able|comfortable|going|allowed|feel|something)|won['’]t|apolog"
    r"|declin|refus|beyond|outside"
)
HINTS = ("sorry", "can", "unable", "not ", "won", "apolog", "declin", "refus", "beyond", "outside")
"""One of them is in whatever HINT finds."""
HINT_WITHIN = 200
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+|\n+")

APOLOGY = (
    r"(?:(?:oh|no|hello|hi|well|hmm|um+)[,.!]? +)?"
    r"(?:(?:i'm|i am|we're|we are)(?: \w+)? sorry|sorry|(?:i|we)(?: \w+)? apologi[sz]e|(?:my )?apologies|unfortunately"
    r"|regrettably|(?:i'm|i am) afraid(?: that)?|i regret(?: to (?:say|inform you))?(?: that)?"
    r"|i understand[^,.]{0,60}|thank you for [^,.]{0,60})"
    r"(?: (?:about|for) (?:that|this|the \w+))?"
)
ROLE = (
    r"(?:as an? [^,.]{2,70}?,?"
    r"|(?:i'm|i am) (?:just |only )?an? (?:ai|artificial|large language|language model)[^,.]{0,40}?[,.]?"
    r"(?: (?:and|so))?)"
)
DECLINES = (
    r"(?:(?:(?:i|we) |(?<=and )|(?<=so ))(?:simply |really |just |also |absolutely )?"
    r"(?:can't|cannot|can not|couldn't|could not|won't|will not|wouldn't|would not|am unable to|am not able to"
    r"|am not going to|am not allowed to|must decline to|have to decline to|decline to|refuse to|do not want to"
    r"|don't want to|don't feel comfortable|do not feel comfortable|am not comfortable"
    r"|am not programmed to|do not have the ability to|don't have the ability to)"
    r"|i'm (?:unable to|not able to|not going to|not allowed to|not comfortable|not programmed to)"
    r"|i (?:must|have to) (?:respectfully )?decline)"
)
DOES = (
    r"(?: (?:in good conscience|ethically|and will not|and won't|directly|further|actually|ever|to))*"
    r"[ ,.]*(?:$|(?:assist|help(?! \w+ing\b)|provid|fulfill?|complet|comply|answer"
    r"|do(?:ing)? (?:that|this|so|it)|giv|support|engag"
    r"|discuss|shar|offer|creat|generat|writ|recommend|suggest|condon|endors|encourag|promot|satisfy|tell|respond|advis"
    r"|teach|participat|produc|accommodat|facilitat|continu|talk|speak|show|explain|describ|be (?:part|involved)"
    r"|proceed|with (?:that|this|your)|that\b|this\b))"
)
BEYOND = (
    r"(?:that|this|it)(?:'s| is) (?:(?:not )?something (?:that )?i(?:'m| am)? "
    r"(?:can|can't|cannot|won't|(?:un|not )?able to|(?:not )?allowed to|(?:not )?comfortable) ?"
    r"(?:help|assist|answer|do|provide|discuss|talk|share|write|generat|support)\w*(?: (?:with|about|for|on|you))*"
    r"|(?:beyond|outside|out) (?:of )?(?:what i can(?: do)?|my (?:\w+ )?(?:capabilit|abilit|scope|expertise)\w*))[.!]*$"
)
REFUSES = re.compile(
    rf"(?:(?:{APOLOGY}|no)[,.;:!]*(?: (?:but|however|and|that))?,? *)?(?:{ROLE} *)?(?:but |however, )?"
    rf"(?:{DECLINES}{DOES}|{BEYOND})"
)
GOES_ON = re.compile(r"\b(?:but|however|instead)\b|: *\S")
"""Continuation of a refusal within its sentence."""
JUST_SORRY = re.compile(rf"{APOLOGY}[,.!]*$")
JOINT = re.compile(r"^(?:additionally|also|furthermore|moreover|however|therefore|please note that|and|but|so)[, ]+")
WRONG = (
    r"(?:illegal|unethical|harmful|dangerous|inappropriate|immoral|wrong|unacceptable"
    r"|against (?:the law|my|our|ethical)"
    r"|not (?:\w+ )?(?:appropriate|ethical|acceptable|legal|right|respectful|ok\b|okay|safe|moral)"
    r"|never (?:\w+ )?(?:appropriate|ethical|acceptable|legal|right|ok\b|okay)"
    r"|violat\w+|goes against|confidential|private|privacy|sensitive|a (?:serious )?crime|(?:could|can) (?:cause|lead))"
)
BLAMES = (
    rf"(?:it|this|that|such|doing so|(?:sharing|providing|asking|discussing|disclosing)\b[^.]*)\b[^.]{{0,60}}?\b{WRONG}"
)
PREACHES = (
    r"(?:it's|it is) (?:also )?(?:important|essential|crucial) to "
    r"(?:respect|remember|note|prioriti[sz]e|treat|follow|always|protect)"
    r"|i (?:strongly |highly )?(?:urge|encourage) you to (?:respect|refrain|not)"
    r"|please (?:refrain|respect|understand|don't ask|do not ask|rephrase)"
)
OFFERS = (
    r"(?:(?:if )?you have|there's|there is|if you need|is there|do you have|would you like|can i|may i|what else"
    r"|how (?:else )?(?:can|may) i)\b[^.]{0,40}\b(?:other|else|different|questions?|assistance|help|further|more)\b"
    r"|(?:if you )?[^.]{0,60}\b(?:feel free to|let me know|please ask|(?:happy|glad|here) to (?:help|assist))"
)
ABOUT_ITSELF = (
    r"(?:my|our) (?:purpose|goal|programming|main goal|primary|role|guidelines|policies|policy)\b"
    r"|(?:i am|i'm) (?:here|programmed|designed|just an ai|an ai|only|committed)\b"
    r"|as an? (?:ai|artificial|language|assistant|responsible|ethical|helpful)"
    r"|(?:i|we) (?:do not|don't|cannot|can't) (?:condone|support|promote|endorse|encourage|assist|provide|help"
    r"|have (?:access|the ability))"
)
SORRY_AGAIN = (
    r"(?:i )?(?:sincerely |truly )?apologi[sz]e for|sorry for|i'm sorry|i am sorry"
    r"|thank you for (?:your )?understanding|i hope you understand|(?:i )?understand (?:that )?your|is that ok|thanks"
)
NO_SUBSTANCE = re.compile(rf"(?:{BLAMES}|{PREACHES}|{OFFERS}|{ABOUT_ITSELF}|{SORRY_AGAIN})")


def only_refuses(answer: str) -> bool:
    """Whether the answer is a refusal and nothing else."""
    return _refuses_in_english(answer) or refuses_in_other_language(answer)


def _refuses_in_english(answer: str) -> bool:
    if len(answer) > LONGEST or not _hints(answer[:HINT_WITHIN].lower()):
        return False
    text = answer.strip().lower().replace("’", "'")
    sentences = [sentence.strip(" \"'*") for sentence in SENTENCE_END.split(text)]
    refused = False
    for sentence in sentences:
        declined = REFUSES.match(sentence)
        if declined and not GOES_ON.search(sentence, declined.end()):
            refused = True
        elif sentence and not JUST_SORRY.match(sentence) and not NO_SUBSTANCE.match(JOINT.sub("", sentence)):
            return False
    return refused


def _hints(opening: str) -> bool:
    for hint in HINTS:
        if hint in opening:
            return HINT.search(opening) is not None
    return False
