"""How requests to tools are worded, one a line: places, messages, searches, sums."""

from __future__ import annotations

from phrasings import lines

NATURAL_QUESTIONS = lines(
    """
what is the {r} in {v}?
what is the {r} of {v}?
what's the {r} in {v}?
what is the {r} for {v}?
show me the {r} in {v}
tell me the {r} in {v}
what is the current {r} in {v}?
how is the {r} in {v}?
{r} in {v}?
what is the {r} like in {v}?
I need the {r} for {v}
give me the {r} of {v}
"""
)

PLACE_QUESTIONS = lines(
    """
What is the {k} in {c}?
What's the {k} in {c}?
{K} in {c}?
How is the {k} in {c}?
What is the {k} like in {c} today?
Tell me the {k} in {c}
What is the current {k} in {c}?
Get the {k} in {c}
Show me the {k} for {c}.
Please check the {k} in {c}
What is the {k} in {c} right now?
What is the {k} in {c} today?
Use the tool to get the {k} in {c}.
"""
)

ADD_WITH_TOOL = lines(
    """
Add {} and {}
What is {} plus {}?
Calculate {} + {}
What is {} + {}?
Use the tool to add {} and {}
Sum {} and {}
"""
)

TIME_QUESTIONS = lines(
    """
What time is it in {c}?
What's the time in {c}?
What is the time in {c} now?
Tell me what time it is in {c}
what time is it in {c}
"""
)

WEATHER_QUESTIONS = lines(
    """
Is it raining in {c}?
Do I need an umbrella in {c}?
How warm is it in {c}?
Is it cold in {c}?
what's the weather like in {c}?
Will it rain in {c}?
I am in {c}. What is the weather?
weather {c}
"""
)

SEARCH_REQUESTS = lines(
    """
Search the web for {}
Search for {}
Search the internet for {}
Look up {}
Find information about {}
Please search for {}
Search for "{}"
Search the web for "{}"
Use the tool to search for {}
web search: {}
"""
)

MESSAGE_REQUESTS = lines(
    """
Send a message to {n}: {t}
Send {n} the message: {t}
Send the message "{t}" to {n}
Send a message to {n} saying {t}
Tell {n}: {t}
Tell {n} "{t}"
Write to {n}: "{t}"
Message {n} with the text "{t}"
Send "{t}" to {n}
Notify {n}: {t}
"""
)

MAIL_REQUESTS = lines(
    """
Send an email to {0} with subject "{1}" and body "{2}"
Send an email to {0}, subject "{1}", text "{2}"
Email {0} with the subject "{1}": {2}
Write an email to {0} about "{1}" saying "{2}"
Send an email to {0} with the subject '{1}' and the text '{2}'
"""
)
