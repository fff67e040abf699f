"""How coding agents' requests are worded, and how their tools are named; one a line.

The places of a wording are the arguments in the order of `agent.agent_values`.
"""

from __future__ import annotations

from phrasings import lines

SAID = {
    "read": lines("""
Read the file {0}
Read {0}
Open {0}
Show me the file {0}
Please read {0}
What is in {0}?
What is in the file {0}?
Show the contents of {0}
cat {0}
Can you read {0}?
View {0}
What does {0} contain?
Look at {0}
Read the file {0} and tell me what it says
Print the file {0}
"""),
    "write": lines("""
Write {1} to {0}
Write {1} to the file {0}
Create the file {0} with {1}
Create {0} with the content {1}
Create a file {0} containing {1}
Save {1} in {0}
Save {1} to {0}
Make a file {0} with the text {1}
Write the file {0}: {1}
Create a file called {0} with the content {1}
Put {1} into {0}
Write a file {0} that says {1}
"""),
    "edit": lines("""
Edit the file {0}: replace {1} with {2}
Edit {0}: replace {1} with {2}
In {0}, replace {1} with {2}
Replace {1} with {2} in {0}
Change {1} to {2} in {0}
In the file {0} change {1} to {2}
Please replace {1} by {2} in {0}
Edit {0} and change {1} to {2}
Update {0}: {1} should be {2}
Replace {1} with {2} in the file {0}
Fix {0}: replace {1} with {2}
"""),
    "run": lines("""
Run the command {0}
Run {0}
Execute {0}
Please run {0}
Run the command: {0}
Run the shell command {0}
Run `{0}`
Execute the command {0}
Can you run {0}?
Run {0} in the terminal
Use the shell to run {0}
Run "{0}"
"""),
    "list": lines("""
List the files in {0}
List {0}
What files are in {0}?
Show the folder {0}
List the directory {0}
What is in the folder {0}?
Show me the files in {0}
Which files are in {0}?
List the folder {0}
"""),
    "search": lines("""
Search for {0} in {1}
Find {0} in {1}
Grep for {0} in {1}
grep {0} in {1}
Search {1} for {0}
Look for {0} in {1}
Where is {0} used in {1}?
"""),
    "glob": lines("""
Find files matching {0}
Find all files named {0}
Find the files {0}
Which files match {0}?
List all {0} files
Glob {0}
"""),
    "delete": lines("""
Delete the file {0}
Delete {0}
Remove {0}
Please delete {0}
Remove the file {0}
"""),
}

NAMES = {
    "read": lines("""
read file
view file
open file
cat file
read
view
get file
load file
read text file
"""),
    "write": lines("""
write file
create file
save file
write
create
put file
write to file
"""),
    "edit": lines("""
edit file
edit
replace in file
str replace
update file
change file
modify file
apply edit
"""),
    "run": lines("""
run command
bash
shell
execute command
run shell command
exec
run
execute bash
terminal
run terminal cmd
"""),
    "list": lines("""
list dir
ls
list directory
list files
list
list folder
"""),
    "search": lines("""
search files
grep
search
find text
search code
grep search
ripgrep
"""),
    "glob": lines("""
glob
find files
find
file search
glob files
"""),
    "delete": lines("""
delete file
remove file
delete
rm
"""),
}
