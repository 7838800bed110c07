"""What is written down about a trial, in which columns, and where?"""
