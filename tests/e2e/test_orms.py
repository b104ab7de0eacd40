"""Object-relational mappers in their usual form, with a check of Redis after each step."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import peewee
import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.e2e.deployment import deploy

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = """
    CREATE TABLE author (id serial PRIMARY KEY, name varchar(100) NOT NULL, books int NOT NULL DEFAULT 0);
    CREATE TABLE book (id serial PRIMARY KEY, title text NOT NULL,
        author_id int NOT NULL REFERENCES author DEFERRABLE INITIALLY DEFERRED);
"""
CONTENT = """
    TRUNCATE author, book RESTART IDENTITY;
    INSERT INTO author (name, books) VALUES ('Ada', 1), ('Ben', 2), ('Cyd', 3);
    INSERT INTO book (title, author_id) VALUES ('Notes', 1), ('More notes', 1);
"""
RULES = [{"name": "author", "key": "id", "value": "name"}, {"name": "book", "key": "id", "value": "title"}]


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("orms")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def deployment(running):
    running.reset(warm=False)
    return running


@pytest.fixture
def name_of(deployment):
    """`name_of(1)`: the author's value in Redis, after every change was applied and no key was found stale."""

    def read(number):
        deployment.settle_and_check()
        value = deployment.redis.get(f"author:{number}")
        return None if value is None else value.decode()

    return read


# -- SQLAlchemy


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    books: orm.Mapped[int] = orm.mapped_column(default=0)
    works: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="works")


def test_sqlalchemy_leaves_no_stale_key(deployment, name_of):
    engine = sa.create_engine(deployment.proxy.url().replace("postgresql:", "postgresql+psycopg:"))
    try:
        with orm.Session(engine) as session:
            session.get(Author, 1)
            assert name_of(1) == "Ada"
            author = session.scalars(sa.select(Author).where(Author.name == "Ben")).one()
            assert name_of(2) == "Ben"
            author.name = "Benjamin"
            session.flush()
            assert name_of(2) == "Ben"
            session.commit()
            assert name_of(2) == "Benjamin"
            author.name = "rolled back"
            session.flush()
            session.rollback()
            assert name_of(2) == "Benjamin"

            new = Author(name="Dot")
            session.add(new)
            session.commit()
            assert new.name == "Dot"
            assert name_of(new.id) == "Dot"
            session.add_all([Author(name=f"many {n}") for n in range(5)])
            session.commit()
            deployment.settle_and_check()

            session.execute(sa.update(Author).where(Author.id == 1).values(books=Author.books + 1))
            session.commit()
            assert name_of(1) == "Ada"
            session.execute(sa.update(Author).where(Author.id == 1).values(name=Author.name + "!"))
            session.commit()
            assert name_of(1) is None
            session.execute(sa.update(Author).where(Author.books > 2).values(name="many books"))
            session.commit()
            assert name_of(3) is None
            session.execute(sa.update(Author), [{"id": 1, "name": "bulk 1"}, {"id": 2, "name": "bulk 2"}])
            session.commit()
            deployment.settle_and_check()

            locked = session.scalars(sa.select(Author).where(Author.id == 1).with_for_update()).one()
            locked.name = "locked"
            session.commit()
            assert name_of(1) == "locked"

            with session.begin_nested():
                locked.name = "outer"
            session.get_one(Author, 2).name = "outer 2"
            inner = session.begin_nested()
            locked.name = "inner"
            session.flush()
            inner.rollback()
            session.commit()
            assert name_of(1) in ("outer", None)
            assert name_of(2) == "outer 2"

            loaded = session.scalars(
                sa.select(Author).options(orm.selectinload(Author.works)).order_by(Author.id)
            ).all()
            assert [work.title for work in loaded[0].works] == ["Notes", "More notes"]
            assert {"book:1", "book:2", "author:1"} <= deployment.settle_and_check()
            joined = sa.select(Author).options(orm.joinedload(Author.works)).order_by(Author.id)
            assert next(author.id for author in session.scalars(joined).unique()) == 1
            deployment.settle_and_check()

            session.delete(new)
            session.commit()
            assert name_of(new.id) is None
            session.execute(sa.delete(Author).where(Author.name.like("many%")))
            session.commit()
            deployment.settle_and_check()
    finally:
        engine.dispose()


async def test_sqlalchemy_with_asyncio_leaves_no_stale_key(deployment):
    def name_of(number):
        deployment.settle_and_check()
        value = deployment.redis.get(f"author:{number}")
        return None if value is None else value.decode()

    async def after(number):
        return await asyncio.to_thread(name_of, number)

    engine = create_async_engine(deployment.proxy.url().replace("postgresql:", "postgresql+asyncpg:"))
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            author = await session.get_one(Author, 1)
            assert await after(1) == "Ada"
            author.name = "Augusta"
            await session.flush()
            assert await after(1) == "Ada"
            await session.commit()
            assert await after(1) == "Augusta"
            async with session.begin_nested():
                author.name = "nested"
            await session.rollback()
            assert await after(1) == "Augusta"
            new = Author(name="Eve")
            session.add(new)
            await session.commit()
            assert await after(new.id) in ("Eve", None)
            await session.refresh(new)
            assert await after(new.id) == "Eve"
            await session.execute(sa.update(Author).where(Author.id == 2).values(name=sa.func.upper(Author.name)))
            await session.commit()
            assert await after(2) is None
            await session.delete(new)
            await session.commit()
            assert await after(new.id) is None
    finally:
        await engine.dispose()


# -- Peewee


def test_peewee_leaves_no_stale_key(deployment, name_of):
    database = peewee.PostgresqlDatabase(
        deployment.database,
        user="postgres",
        host=deployment.proxy.host,
        port=deployment.proxy.port,
        prefer_psycopg3=True,
    )

    class Author(peewee.Model):
        id = peewee.AutoField()
        name = peewee.CharField()
        books = peewee.IntegerField(default=0)

    Author.bind(database)
    database.connect()
    try:
        author = Author.get_by_id(1)
        assert name_of(1) == "Ada"
        author.name = "Adele"
        author.save(only=[Author.name])
        assert name_of(1) == "Adele"
        author.save()
        assert name_of(1) == "Adele"
        assert len(list(Author.select())) == 3
        assert name_of(3) == "Cyd"

        with database.atomic() as transaction:
            Author.update(name="undone").where(Author.id == 1).execute()
            transaction.rollback()
        assert name_of(1) == "Adele"
        with database.atomic():
            Author.update(name="outer").where(Author.id == 1).execute()
            with database.atomic() as savepoint:
                Author.update(name="inner").where(Author.id == 2).execute()
                savepoint.rollback()
        assert name_of(1) == "outer"
        assert name_of(2) == "Ben"

        new = Author.create(name="Fay")
        assert name_of(new.id) in ("Fay", None)
        Author.insert_many([{"name": "x"}, {"name": "y"}]).execute()
        Author.update(books=Author.books + 1).execute()
        assert name_of(1) == "outer"
        Author.update(name=Author.name.concat("!")).where(Author.id == 1).execute()
        assert name_of(1) is None
        Author.bulk_update([Author(id=1, name="b1"), Author(id=2, name="b2")], fields=[Author.name])
        assert name_of(1) is None
        with database.atomic():
            locked = Author.select().where(Author.id == 1).for_update().get()
            locked.name = "locked"
            locked.save()
        assert name_of(1) == "locked"
        upsert = Author.insert(id=1, name="up").on_conflict(
            conflict_target=[Author.id], update={Author.name: peewee.EXCLUDED.name}
        )
        upsert.execute()
        deployment.settle_and_check()
        author = Author.get_by_id(1)
        assert name_of(1) == "up"
        last = Author.get_by_id(3)
        assert name_of(3) is not None
        last.delete_instance()
        assert name_of(3) is None
        Author.delete().where(Author.name.startswith("x")).execute()
        deployment.settle_and_check()
    finally:
        database.close()


# -- Django


def test_django_leaves_no_stale_key(deployment, name_of):
    """Django's settings last as long as its process, so a process of its own runs the steps, one at a time."""
    settings = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": deployment.database,
        "USER": "postgres",
        "HOST": deployment.proxy.host,
        "PORT": deployment.proxy.port,
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("django_program.py")), json.dumps(settings)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    assert process.stdin is not None
    assert process.stdout is not None
    steps, results = process.stdin, process.stdout

    def step(name):
        steps.write(name + "\n")
        steps.flush()
        answer = results.readline().strip()
        assert answer, "the program ended"
        return json.loads(answer)

    try:
        assert step("read") == "Ada"
        assert name_of(1) == "Ada"
        step("save")
        assert name_of(1) == "saved"
        step("save_one_field")
        assert name_of(1) == "one field"
        number = step("create")
        assert name_of(number) in ("created", None)
        step("f_expression")
        assert name_of(1) == "one field"
        step("f_name")
        assert name_of(1) is None
        step("update_all")
        assert name_of(2) is None
        step("list_all")
        assert name_of(2) == "all the same"
        step("bulk_create")
        step("bulk_update")
        deployment.settle_and_check()
        step("select_for_update")
        assert name_of(1) == "locked"
        step("atomic_undone")
        assert name_of(1) == "locked"
        step("nested_atomic")
        assert name_of(1) == "outer"
        assert name_of(2) in ("all the same", None)
        step("durable_read")
        step("update_or_create")
        deployment.settle_and_check()
        step("select_related")
        assert {"book:1", "author:1"} <= deployment.settle_and_check()
        step("iterator")
        deployment.settle_and_check()
        step("values")
        assert name_of(1) is not None
        step("delete")
        assert name_of(number) is None
        step("delete_many")
        deployment.settle_and_check()
    finally:
        steps.close()
        results.close()
        assert process.wait(20) == 0
