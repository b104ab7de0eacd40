"""The constants equal those in libpq's headers, which write them in another form."""

from protocol import codes


def test_versions_and_request_codes_equal_libpqs():
    assert codes.PROTOCOL_3_0 == 196_608
    assert codes.PROTOCOL_3_2 == 196_610
    assert (codes.CANCEL_REQUEST, codes.SSL_REQUEST, codes.GSSENC_REQUEST) == (80_877_102, 80_877_103, 80_877_104)


def test_one_byte_codes_are_the_manuals_letters():
    assert bytes((codes.IDLE, codes.IN_TRANSACTION, codes.FAILED_TRANSACTION)) == b"ITE"
    assert bytes((codes.PREPARED_STATEMENT, codes.PORTAL)) == b"SP"
    assert bytes((codes.SEVERITY, codes.SEVERITY_UNLOCALIZED, codes.SQLSTATE, codes.MESSAGE)) == b"SVCM"
