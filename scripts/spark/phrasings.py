"""How things are asked: the wordings of every task, one a line; `{}` is filled by the generator.

Lists that end in HELD_OUT are used by the evaluation alone. A wording listed twice is drawn twice
as often; `\\n` in a line is a line break.
"""

from __future__ import annotations


def lines(text: str) -> tuple[str, ...]:
    """One entry per line."""
    return tuple(line.replace("\\n", "\n") for line in text.strip().splitlines())


REPEAT = lines(
    """
Repeat: {}
Repeat after me: {}
Repeat: {}
Repeat after me: {}
repeat: {}
Please repeat: {}
Say: {}
Echo: {}
Repeat this: {}
Repeat exactly: {}
Repeat the following: {}
Copy: {}
Repeat the words: {}
Say exactly: {}
Repeat the following text exactly: {}
Please repeat after me: {}
Repeat this text: {}
Repeat back: {}
Can you repeat: {}
Say this: {}
Repeat {}
Say {}
Repeat after me:\n{}
Reply with exactly: {}
Reply with: {}
Answer with: {}
Say the following: {}
Write: {}
Print: {}
Output: {}
Repeat the word {}
Say the word {}
Reply with the single word {}
Reply with just {}
Just say {}
"""
)

CAPITAL = lines(
    """
What is the capital of {}?
What's the capital of {}?
Capital of {}?
{} capital?
Tell me the capital of {}.
Name the capital of {}.
Which city is the capital of {}?
what is the capital of {}
What is {}'s capital?
What is the capital city of {}?
Can you tell me the capital of {}?
Please name the capital of {}
The capital of {} is?
Do you know the capital of {}?
Give me the capital of {}.
the capital of {}, please
I want to know the capital of {}.
What city is the capital of {}?
capital of {}
Which city is {}'s capital?
Say the capital of {}.
Answer in one word: capital of {}?
Quick question: what is the capital of {}?
Hello, what is the capital of {}?
I am going to {}. What is its capital?
Where is the government of {}? Name the capital.
In {}, which city is the capital?
My question is about {}: what is the capital?
{}: what is the capital?
Find the capital of {}.
Which is the capital of {}?
Remind me of the capital of {}.
I am looking for the capital of {}.
For {}, name the capital.
Let me ask about {}. What is its capital?
Can you name {}'s capital city?
{}'s capital city?
What do they call the capital of {}?
I need to know {}'s capital.
Do you remember the capital of {}?
Next: capital of {}
And {}'s capital?
the capital city of {} please
Which town is the capital of {}?
I'd like to know the capital of {}
Tell me which city is the capital of {}.
I forgot what {}'s capital is called.
I live in {}. What is the capital?
What is the name of {}'s capital?
Could you tell me {}'s capital?
Tell me the capital city of {}.
Please tell me {}'s capital.
With {} in mind, which city is the capital?
capital city {}
What would be the capital of {}?
How is the capital of {} called?
About {}: which city is its capital?
Give the name of the capital of {}.
"""
)

CAPITAL_HELD_OUT = lines(
    """
Could you name the capital city of {}?
Please tell me what the capital of {} is.
I forgot the capital of {}. What is it?
Which city serves as the capital of {}?
Tell me {}'s capital city, please.
Hi! What is the name of the capital of {}?
The capital city of {}?
For {}, what is the capital city?
"""
)

SUM = lines(
    """
What is {} plus {}?
What is {} + {}?
{} + {}
{} plus {}
Add {} and {}.
What's {} + {}?
Calculate {} + {}
Compute {} plus {}.
How much is {} plus {}?
{} + {} =
{}+{}
What is the sum of {} and {}?
Sum {} and {}
Please add {} and {}
Tell me {} plus {}.
How much is {} + {}?
What do you get when you add {} and {}?
If I have {} apples and get {} more, how many do I have?
Give me the sum of {} and {}.
Can you add {} and {}?
what is {} plus {}
{} and {} make?
Solve {} + {}
What does {} plus {} make?
The sum of {} and {}?
Do the sum: {} + {}
{} + {} = ?
Tell me the sum of {} and {}.
Could you add {} and {}?
I need the sum of {} and {}.
Now {} + {}
Next: {} + {}
Please compute {} + {}
What is the result of {} + {}?
Count together {} and {}
Add up {} and {}
If you add {} and {}, what do you get?
what's {} plus {}
Can you calculate {} + {}?
Tell me what {} + {} is
I have {} and {}. What is the sum?
Find {} + {}
{} and {}: what is the sum?
How many are {} and {} together?
Please tell me the result of {} plus {}
What number do you get from {} + {}?
Work out {} plus {}.
"""
)

SUM_HELD_OUT = lines(
    """
Please tell me what {} plus {} is.
Could you compute {} + {}?
Add these: {} and {}
I want to know {} + {}.
What number is {} plus {}?
Find the sum of {} and {}.
Hello, what is {} + {}?
Can you calculate {} plus {} for me?
"""
)

WHO = lines(
    """
Who are you?
What are you?
What is your name?
who are you
Tell me who you are.
What's your name?
Which model are you?
What model are you?
Introduce yourself.
Please introduce yourself
Are you a human?
Say who you are.
Who am I talking to?
Who is this?
Tell me your name.
Who made you?
What model is this?
Are you an AI?
Hello, who are you?
Hi, what is your name?
Can you tell me who you are?
I wonder who you are.
Please say who you are
What should I call you?
How are you called?
Tell me about yourself.
what model are you
Do you have a name?
And who are you?
Now tell me who you are.
What is your model name?
Please tell me your name.
Are you spark?
Are you ChatGPT?
Who am I speaking with?
Which AI is this?
"""
)

WHO_HELD_OUT = lines(
    """
Please tell me who you are.
Hello! What are you called?
So, who are you?
What is the name of this model?
May I ask who you are?
"""
)

ABLE = lines(
    """
What can you do?
Help
What are you able to do?
How can you help me?
help me
What do you know?
Can you help me?
What are you good at?
"""
)

UNKNOWN = lines(
    """
Why is the {a} {j}?
Explain the {a}.
What do you think about {a}?
Who invented the {a}?
How does a {a} work?
Is the {a} {j}?
What is the best {a}?
When was the {a} made?
What is a {a}?
How do I make a {a}?
Translate {a} to French
Summarize the {a}.
What is the meaning of life?
Write a function for the {a}
Is it true that a {a} is {j}?
"""
)

STORY = lines(
    """
Tell me a story about a {a}.
Tell a story about a {a}
Write a story about a {a}.
Write a short story about a {a}
Tell me a short story about a {a}.
Write a poem about a {a}
Write a haiku about the {a}
Write a poem about the {a}.
Write a long story about a {a}.
"""
)

TALK = {
    "Why did the token cross the road? To get to the other side.": lines("""
Tell me a joke
Tell me a joke.
Do you know a joke?
A joke, please
"""),
    "Hello! How can I help?": lines("""
Hello
Hi
Hey
hello
hi
Hello!
Hi there
Hello there!
Hi!
Good day
Greetings
hey there
hello spark
Hello, spark!
"""),
    "Good morning! How can I help?": lines("""
Good morning
good morning
Good morning!
Morning!
"""),
    "Good evening! How can I help?": lines("""
Good evening
good evening
Good evening!
"""),
    "I am fine, thank you.": lines("""
How are you?
How are you today?
how are you
Are you well?
Hello, how are you?
How is it going?
What's up?
"""),
    "You are welcome!": lines("""
Thanks
Thank you
thanks!
Thank you!
Thank you very much
Great, thanks
Thanks a lot
"""),
    "Goodbye!": lines("""
Bye
Goodbye
bye
See you
Good night
See you tomorrow
Goodbye!
"""),
    "pong": lines("""
ping
Ping
Ping!
"""),
    "Okay.": lines("""
Okay
ok
OK
Good
Great
I see
Nice
Test
test
Fine
Sure
"""),
    "Yes.": lines("""
Are you there?
Are you ready?
Can you hear me?
Do you work?
Is this on?
"""),
}

LEADS = lines(
    """
Hello, {}
Hi! {}
Please: {}
Quick question: {}
Now, {}
So, {}
One more: {}
Question: {}
Tell me: {}
Well, {}
I have a question. {}
Hey, {}
Okay. {}
Thanks. {}
Good morning. {}
Next question: {}
Please answer: {}
Another one: {}
"""
)

TAILS = lines(
    """
{} Thanks!
{} Please answer briefly.
{} Thank you.
{} I need to know.
{} Be brief.
{} Only the answer.
{} please
{} Answer in one sentence.
"""
)
