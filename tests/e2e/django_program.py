"""A program that uses Django's models: it reads the name of a step from each line of its input and writes the result as
JSON."""

import contextlib
import json
import sys

import django
from django.conf import settings

settings.configure(DATABASES={"default": json.loads(sys.argv[1])}, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()

from django.db import models, transaction  # noqa: E402 - only after the settings


class Author(models.Model):  # type: ignore[misc] # Django has no types
    name = models.CharField(max_length=100)
    books = models.IntegerField(default=0)

    class Meta:
        app_label = "library"
        db_table = "author"


class Book(models.Model):  # type: ignore[misc] # Django has no types
    title = models.TextField()
    author = models.ForeignKey(Author, models.CASCADE)

    class Meta:
        app_label = "library"
        db_table = "book"


class Undo(Exception):  # noqa: N818 - no error
    """Raised to leave a block and roll it back."""


def read():
    return Author.objects.get(pk=1).name


def save():
    author = Author.objects.get(pk=1)
    author.name = "saved"
    author.save()


def save_one_field():
    author = Author.objects.get(pk=1)
    author.name = "one field"
    author.save(update_fields=["name"])


def create():
    return Author.objects.create(name="created", books=-1).pk


def f_expression():
    return Author.objects.filter(pk=1).update(books=models.F("books") + 1)


def f_name():
    return Author.objects.filter(pk=1).update(name=models.functions.Concat("name", models.Value("!")))


def update_all():
    return Author.objects.update(name="all the same")


def list_all():
    return len(Author.objects.all())


def bulk_create():
    Author.objects.bulk_create([Author(name=f"bulk {n}") for n in range(4)])


def bulk_update():
    authors = list(Author.objects.filter(name__startswith="bulk"))
    for author in authors:
        author.name += " updated"
    Author.objects.bulk_update(authors, ["name"])


def select_for_update():
    with transaction.atomic():
        author = Author.objects.select_for_update().get(pk=1)
        author.name = "locked"
        author.save()


def atomic_undone():
    with contextlib.suppress(Undo), transaction.atomic():
        Author.objects.filter(pk=1).update(name="undone")
        raise Undo


def nested_atomic():
    with transaction.atomic():
        Author.objects.filter(pk=1).update(name="outer")
        with contextlib.suppress(Undo), transaction.atomic():
            Author.objects.filter(pk=2).update(name="inner")
            raise Undo


def durable_read():
    with transaction.atomic(durable=True):
        return [author.name for author in Author.objects.filter(pk__in=[1, 2])]


def update_or_create():
    Author.objects.update_or_create(pk=1, defaults={"name": "updated or created"})
    Author.objects.get_or_create(name="Gil", defaults={"books": 7})


def select_related():
    return [book.author.name for book in Book.objects.select_related("author").order_by("pk")]


def iterator():
    return [author.name for author in Author.objects.order_by("pk").iterator(chunk_size=2)]


def values():
    return list(Author.objects.filter(pk=1).values_list("pk", "name"))


def delete():
    """Delete the author that `create` made."""
    return Author.objects.get(books=-1).delete()[0]


def delete_many():
    return Author.objects.filter(books__gt=100).delete()[0]


for line in sys.stdin:
    result = globals()[line.strip()]()
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
