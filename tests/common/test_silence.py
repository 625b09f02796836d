"""A logger is silent in a block only."""

import logging

from maskrcnn_ext.common.silence import log_silenced


def test_the_block_is_silent(caplog):
    logger = logging.getLogger("noisy")
    with log_silenced(logger):
        logger.error("inside")
    logger.error("outside")
    assert [record.message for record in caplog.records] == ["outside"]
